//! `[canary]` of an app's file: the steps by which a new release comes to its requests, and what it is held to in each.

use std::collections::BTreeMap;
use std::time::Duration;

use super::app::{target, words};
use super::error::ConfigError;
use super::section::Value;
use super::span;
use crate::deploy::{self, CanaryStep, Checks, Quantile, Quiet, Rate, Ratio, Weight};

/// Steps, as they are shown to whoever wrote wrong ones.
const STEPS: &str = "[\"1% 2m\", \"10% 5m\", \"50% 5m\"]";
/// The app's own check, as it is shown to whoever wrote a wrong one.
const CHECK: &str = "\"./bin/smoke\"";
/// The most that a rate or a ratio may be, in hundredths.
const MOST: u32 = 10_000;

/// The plan of an app's deployments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    /// What is decided by.
    pub plan: deploy::Canary,
    /// `probes = ["/"]`: what is requested of both slots where there are too few requests.
    pub probes: Vec<String>,
    /// `check = "./bin/smoke"`: the app's own check, at the end of each step.
    pub check: Option<Vec<String>>,
}

impl Canary {
    pub(super) fn parse(table: Value<'_>) -> Result<Self, ConfigError> {
        let place = table.place();
        let mut keys = table.section("[canary]")?;
        let steps = keys.take("steps").map(|value| steps(&value)).transpose()?;
        let flag = |value: Option<Value<'_>>| value.map_or(Ok(true), |value| value.flag());
        let auto_promote = flag(keys.take("auto_promote"))?;
        let mut checks = Checks::default();
        if let Some(value) = keys.take("min_requests") {
            checks.min_requests = u64::from(value.number(1, 1_000_000)?);
        }
        if let Some(value) = keys.take("error_rate") {
            checks.error_rate = rate(&value)?;
        }
        if let Some(value) = keys.take("error_ratio") {
            checks.error_ratio = Some(ratio(&value)?);
        }
        checks.latency = by_quantile(keys.take("latency"), "{ p99 = \"500ms\" }", |value| {
            value.lasting("500ms")
        })?;
        checks.latency_ratio = by_quantile(keys.take("latency_ratio"), "{ p99 = 2 }", ratio)?;
        let warm_up = keys
            .take("warm_up")
            .map_or(Ok(Duration::ZERO), |value| value.span("\"10s\""))?;
        let quiet = keys.take("quiet").map_or(Ok(Quiet::Probe), |value| {
            value.word(&[
                ("hold", Quiet::Hold),
                ("probe", Quiet::Probe),
                ("advance", Quiet::Advance),
            ])
        })?;
        let probes = match keys.take("probes") {
            None => Vec::new(),
            Some(value) => {
                let listed = value.list("[\"/\"]")?;
                let targets = listed.iter().map(|item| target(item, "\"/\""));
                targets.collect::<Result<_, _>>()?
            }
        };
        let max_hold = keys
            .take("max_hold")
            .map_or(Ok(Duration::from_secs(3600)), |value| value.lasting("1h"))?;
        let check = keys.take("check").map(|value| words(&value, CHECK));
        keys.finish()?;
        let steps = steps.ok_or_else(|| {
            place.error(
                "it does not say by which steps",
                format!("write `steps = {STEPS}`"),
            )
        })?;
        Ok(Self {
            plan: deploy::Canary {
                steps,
                auto_promote,
                checks,
                warm_up,
                quiet,
                max_hold,
            },
            probes,
            check: check.transpose()?,
        })
    }
}

/// `["1% 2m", "10% 5m"]`: weights that grow, each with its time.
fn steps(value: &Value<'_>) -> Result<Vec<CanaryStep>, ConfigError> {
    let mut steps: Vec<CanaryStep> = Vec::new();
    for item in value.list(STEPS)? {
        let written = item.text("\"10% 5m\"")?;
        let step = step(&written).ok_or_else(|| {
            item.error(
                format!("{written:?} is no step"),
                "write a weight from 1% to 99% and how long it lasts: \"10% 5m\"",
            )
        })?;
        if let Some(before) = steps.last().filter(|before| before.weight >= step.weight) {
            return Err(item.error(
                format!(
                    "{written:?} gives no more than the step before it, {}",
                    before.weight
                ),
                format!("let the weights grow: `steps = {STEPS}`"),
            ));
        }
        steps.push(step);
    }
    if steps.is_empty() {
        return Err(value.error(
            "it is empty",
            format!("remove [canary], or write `steps = {STEPS}`"),
        ));
    }
    Ok(steps)
}

fn step(written: &str) -> Option<CanaryStep> {
    let (weight, lasts) = written.split_once(' ')?;
    let weight: Weight = weight.strip_suffix('%')?.parse().ok()?;
    let lasts = span::parse(lasts.trim()).filter(|lasts| !lasts.is_zero())?;
    let some = weight != Weight::NONE && weight != Weight::ALL;
    some.then_some(CanaryStep { weight, lasts })
}

/// `"5%"`, `"0.5%"`; `"off"` is none.
pub(super) fn rate(value: &Value<'_>) -> Result<Option<Rate>, ConfigError> {
    let written = value.text("\"5%\"")?;
    if written == "off" {
        return Ok(None);
    }
    let number = written.strip_suffix('%').and_then(hundredths);
    match number.filter(|number| *number <= MOST) {
        Some(number) => Ok(Some(Rate(number))),
        None => Err(value.error(
            format!("{written:?} is no part of a hundred"),
            format!(
                "write for instance `{} = \"5%\"`, with at most two decimals, or \"off\"",
                value.own_key()
            ),
        )),
    }
}

/// `2`, `1.5`: at least once.
fn ratio(value: &Value<'_>) -> Result<Ratio, ConfigError> {
    let written = value.decimal();
    let number = written.as_deref().and_then(hundredths);
    number
        .filter(|number| (100..=MOST).contains(number))
        .map(Ratio)
        .ok_or_else(|| {
            value.error(
                "it is not how many times as much",
                format!(
                    "write a number from 1 to 100, without quotes: `{} = 2`",
                    value.own_key()
                ),
            )
        })
}

/// A number with at most two decimals, in hundredths.
fn hundredths(written: &str) -> Option<u32> {
    let (whole, decimals) = written.split_once('.').unwrap_or((written, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || whole.len() > 5 || decimals.len() > 2 || !digits(decimals) {
        return None;
    }
    let whole: u32 = Some(whole).filter(|whole| digits(whole))?.parse().ok()?;
    let decimals: u32 = format!("{decimals:0<2}").parse().ok()?;
    whole.checked_mul(100)?.checked_add(decimals)
}

fn by_quantile<T>(
    table: Option<Value<'_>>,
    example: &str,
    read: impl Fn(&Value<'_>) -> Result<T, ConfigError>,
) -> Result<BTreeMap<Quantile, T>, ConfigError> {
    let mut found = BTreeMap::new();
    let Some(table) = table else {
        return Ok(found);
    };
    let mut keys = table.section(example)?;
    for quantile in Quantile::ALL {
        if let Some(value) = keys.take(quantile.name()) {
            found.insert(quantile, read(&value)?);
        }
    }
    keys.finish()?;
    Ok(found)
}
