//! What goes on when a soak is over: `after_soak`.

use super::error::ConfigError;
use super::section::Section;
use crate::deploy::{After, Failing};

pub(super) fn after(keys: &mut Section<'_>) -> Result<After, ConfigError> {
    let words = [
        ("report", Failing::Told),
        ("rollback", Failing::Left),
        ("off", Failing::Unseen),
    ];
    let failing = keys.take("after_soak");
    let failing = failing.map_or(Ok(Failing::default()), |value| value.word(&words))?;
    Ok(After {
        failing,
        ..After::default()
    })
}
