//! What the doctor found, for people and for scripts.
//!
//! **Invariant:** the text is a pure function of the findings; the worst comes last, where a terminal ends.

use std::fmt::Write;

use serde::Serialize;

use super::super::exit::{Ended, Exit};
use super::super::term::{Paint, harmless, wrap};
use super::mend::Mended;
use crate::doctor::{Finding, Level};

/// The widest that the column of objects gets; a longer one has the text on the next line.
const WIDEST: usize = 32;

/// What `--json` says.
#[derive(Debug, Serialize)]
pub struct Object {
    /// Success is that there is no problem.
    #[serde(flatten)]
    ended: Ended,
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

/// The exit status: warnings are none of its business.
pub fn exit(findings: &[Finding]) -> Exit {
    match count(findings, Level::Problem) {
        0 => Exit::Ok,
        _ => Exit::Failed,
    }
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
        ended: exit(findings).ended(|| format!("there are problems: {problems}")),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Mend;

    fn finding(level: Level, object: &str, text: &str) -> Finding {
        Finding {
            level,
            check: "unit",
            object: object.to_owned(),
            text: text.to_owned(),
            why: String::new(),
            remedy: String::new(),
            journal: String::new(),
            mend: None,
        }
    }

    #[test]
    fn the_worst_comes_last_with_what_to_do_and_columns_are_aligned() {
        let stale = Finding {
            why: "it runs by what they said before".to_owned(),
            remedy: "`systemctl daemon-reload`".to_owned(),
            mend: Some(Mend::Reload),
            ..finding(Level::Warning, "slotd.service", "is stale")
        };
        let down = Finding {
            journal: "journalctl -b -u web@blue".to_owned(),
            ..finding(Level::Problem, "web@blue.service", "is down\x1b[2J")
        };
        let findings = [down, stale, finding(Level::Ok, "clock", "is synchronised")];
        let shown = text(&findings, &[], true, Paint::default(), usize::MAX);
        let expected = "\
ok       clock             is synchronised
warning  slotd.service     is stale
           why: it runs by what they said before
           do:  `systemctl daemon-reload`
problem  web@blue.service  is down\u{fffd}[2J
           see: `journalctl -b -u web@blue`

1 problem, 1 warning.
`sudo slotctl doctor --fix` mends 1 of it.
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn what_was_done_is_said_and_what_could_not_be_seen_is_counted() {
        let mended = [
            Mended {
                command: "systemctl daemon-reload".to_owned(),
                error: None,
            },
            Mended {
                command: "rm /x".to_owned(),
                error: Some("no such file".to_owned()),
            },
        ];
        let findings = [finding(
            Level::Unseen,
            "slotd.service",
            "could not be looked at",
        )];
        let shown = text(&findings, &mended, false, Paint::default(), 80);
        for part in [
            "done: systemctl daemon-reload\nnot done: rm /x: no such file\n",
            "No problem, and no warning.\n1 of it could not be looked at: `sudo slotctl doctor` sees more.\n",
        ] {
            assert!(shown.contains(part), "{shown}");
        }
        let object = serde_json::to_value(object(&findings, &mended)).unwrap();
        assert_eq!(
            (&object["success"], &object["unseen"]),
            (&true.into(), &1.into())
        );
        assert_eq!(object["fixed"][1]["error"], "no such file");
    }
}
