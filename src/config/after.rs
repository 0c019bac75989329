//! What goes on when a soak is over: `after_soak`, `keep_warm`, `keep_warm_frozen`.

use std::time::Duration;

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
    let keep_warm = keys.take("keep_warm");
    let keep_warm = keep_warm.map_or(Ok(Duration::ZERO), |value| value.span("\"30m\""))?;
    let frozen = keys.take("keep_warm_frozen");
    let frozen = frozen.map_or(Ok(false), |value| value.flag())?;
    Ok(After {
        failing,
        keep_warm,
        frozen,
    })
}
