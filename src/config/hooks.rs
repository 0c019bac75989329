//! `[hooks]` of an app's file: commands that run around a switch.

use std::collections::BTreeMap;
use std::time::Duration;

use super::app::words;
use super::error::ConfigError;
use super::section::Value;
use crate::deploy::Hook;

/// A hook's command, as it is shown to whoever wrote a wrong one.
const EXAMPLE: &str = "\"./bin/migrate\"";

/// The app's hooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// What each runs.
    pub commands: BTreeMap<Hook, Vec<String>>,
    /// How long each may take.
    pub timeout: Duration,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            commands: BTreeMap::new(),
            timeout: Duration::from_secs(60),
        }
    }
}

impl Hooks {
    pub(super) fn parse(table: Value<'_>) -> Result<Self, ConfigError> {
        let mut keys = table.section("[hooks]")?;
        let mut hooks = Self::default();
        for hook in Hook::AROUND {
            if let Some(value) = keys.take(hook.name()) {
                hooks.commands.insert(hook, words(&value, EXAMPLE)?);
            }
        }
        if let Some(value) = keys.take("timeout") {
            hooks.timeout = value.lasting("1m")?;
        }
        keys.finish()?;
        Ok(hooks)
    }
}
