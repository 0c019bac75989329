//! What the doctor found, for people and for scripts.
//!
//! **Invariant:** the text is a pure function of the findings; the worst comes last, where a terminal ends.

use std::fmt::Write;

use serde::Serialize;

use super::super::term::{Paint, harmless, wrap};
use super::mend::Mended;
use crate::doctor::{Finding, Level};

/// The widest that the column of objects gets; a longer one has the text on the next line.
const WIDEST: usize = 32;

/// What `--json` says.
#[derive(Debug, Serialize)]
pub struct Object {
    /// There is no problem.
    success: bool,
    problems: usize,
    warnings: usize,
    unseen: usize,
    findings: Vec<Line>,
    /// What `--fix` did.
    fixed: Vec<Fixed>,
}

/// One finding.
#[derive(Debug, Serialize)]
struct Line {
    level: &'static str,
    check: &'static str,
    object: String,
    text: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    remedy: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    journal: String,
    /// What `--fix` would run.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

#[derive(Debug, Serialize)]
struct Fixed {
    command: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

fn count(findings: &[Finding], level: Level) -> usize {
    findings.iter().filter(|it| it.level == level).count()
}

/// For scripts.
pub fn object(findings: &[Finding], mended: &[Mended]) -> Object {
    let problems = count(findings, Level::Problem);
    let line = |it: &Finding| Line {
        level: it.level.name(),
        check: it.check,
        object: it.object.clone(),
        text: it.text.clone(),
        why: it.why.clone(),
        remedy: it.remedy.clone(),
        journal: it.journal.clone(),
        fix: it.mend.as_ref().map(crate::doctor::Mend::command),
    };
    let fixed = |it: &Mended| Fixed {
        command: it.command.clone(),
        error: it.error.clone(),
    };
    Object {
        success: problems == 0,
        problems,
        warnings: count(findings, Level::Warning),
        unseen: count(findings, Level::Unseen),
        findings: findings.iter().map(line).collect(),
        fixed: mended.iter().map(fixed).collect(),
    }
}

/// For people.
pub fn text(
    findings: &[Finding],
    mended: &[Mended],
    root: bool,
    paint: Paint,
    width: usize,
) -> String {
    let mut text = String::new();
    let lengths = findings.iter().map(|it| it.object.chars().count());
    let column = lengths
        .filter(|length| *length <= WIDEST)
        .max()
        .unwrap_or(0);
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|it| it.level);
    for it in sorted {
        let level = format!("{:<7}", it.level.name());
        let level = match it.level {
            Level::Ok => paint.good(&level),
            Level::Unseen => paint.dim(&level),
            Level::Warning => paint.odd(&level),
            Level::Problem => paint.bad(&level),
        };
        let line = format!("{:<column$}  {}", it.object, it.text);
        // The level's seven characters and two spaces, without what colours it.
        let line = wrap(&harmless(&line), width.saturating_sub(9), "  ");
        let _ = writeln!(text, "{level}  {}", line.replace('\n', "\n         "));
        let journal = match it.journal.as_str() {
            "" => String::new(),
            command => format!("`{command}`"),
        };
        for (word, words) in [("why:", &it.why), ("do: ", &it.remedy), ("see:", &journal)] {
            if !words.is_empty() {
                let line = wrap(
                    &format!("           {word} {}", harmless(words)),
                    width,
                    "                ",
                );
                let _ = writeln!(text, "{line}");
            }
        }
    }
    if !mended.is_empty() {
        text.push('\n');
    }
    for it in mended {
        let _ = match &it.error {
            None => writeln!(text, "{} {}", paint.good("done:"), it.command),
            Some(why) => writeln!(
                text,
                "{} {}: {}",
                paint.bad("not done:"),
                it.command,
                harmless(why)
            ),
        };
    }
    let _ = write!(text, "\n{}", summary(findings, root, paint));
    text
}

fn summary(findings: &[Finding], root: bool, paint: Paint) -> String {
    let some = |many: usize, word: &str| match many {
        0 => None,
        1 => Some(format!("1 {word}")),
        many => Some(format!("{many} {word}s")),
    };
    let parts = [
        some(count(findings, Level::Problem), "problem").map(|part| paint.bad(&part)),
        some(count(findings, Level::Warning), "warning").map(|part| paint.odd(&part)),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let mut text = match parts.as_slice() {
        [] => format!("{}\n", paint.good("No problem, and no warning.")),
        parts => format!("{}.\n", parts.join(", ")),
    };
    let unseen = count(findings, Level::Unseen);
    if unseen > 0 {
        let how = if root {
            ""
        } else {
            ": `sudo slotctl doctor` sees more"
        };
        let _ = writeln!(text, "{unseen} of it could not be looked at{how}.");
    }
    let mends = findings.iter().filter(|it| it.mend.is_some()).count();
    if mends > 0 {
        let _ = writeln!(text, "`sudo slotctl doctor --fix` mends {mends} of it.");
    }
    text
}
