//! `slotctl app renew`: what an older slotctl wrote for apps gets the form of this one. The package's scripts call it at an upgrade.
//!
//! Units are made anew whenever systemd reads them, so that it is about the polkit rules.
//!
//! **Invariant:** nobody is asked and no unit is touched: neither systemd nor slotd needs to run.
//! **Invariant:** only a form is changed. A rule that is not there is not made, one that somebody else wrote is his, and no unit is taken out:
//! slotd, which may not have read a file that was changed by hand, has to be able to stop what it started.

use std::fs;
use std::io::ErrorKind;

use super::super::doctor::apps;
use super::super::exit::Exit;
use super::super::term::{harmless, note};
use super::add::allow;
use crate::config::App;
use crate::units::{polkit_rule, polkit_rule_path, units_of_rule};

/// Renews the rule of every app, and says of each that stays as it is why. The exit status is 1 if there is one.
pub fn run() -> Exit {
    let mut exit = Exit::Ok;
    for (name, (file, app)) in apps::files() {
        let Ok(name) = name.parse() else {
            continue;
        };
        let rule = polkit_rule_path(&name);
        let found = match fs::read_to_string(&rule) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            found => found.map_err(|error| error.to_string()),
        };
        let renewed = found.and_then(|found| {
            let app = app.map_err(|fault| format!("{} is wrong: {fault}", file.display()))?;
            match is_current(&app, &found)? {
                true => Ok(()),
                false => allow(&app).map_err(|error| format!("{error:#}")),
            }
        });
        if let Err(why) = renewed {
            exit = Exit::Failed;
            note(&format!(
                "slotctl: {} stays as it is: {}; when that is mended, `slotctl app reload {name}`\n",
                rule.display(),
                harmless(&why)
            ));
        }
    }
    exit
}

/// Whether a rule is what would be written for the app now.
///
/// # Errors
/// It is not, and is not to be written anew; why.
fn is_current(app: &App, found: &str) -> Result<bool, String> {
    let made = polkit_rule(app);
    if found == made {
        return Ok(true);
    }
    let named = units_of_rule(found).ok_or("it is not slotctl's")?;
    let kept = units_of_rule(&made).unwrap_or_default();
    match named.into_iter().find(|unit| !kept.contains(unit)) {
        Some(unit) => Err(format!(
            "it names {unit}, which is no unit of the app's file as that is now"
        )),
        None => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(slots: &str) -> App {
        App::parse(
            &format!("name = \"web\"\ncommand = \"./x\"\nslots = [{slots}]\n"),
            "web.toml",
        )
        .unwrap()
    }

    #[test]
    fn a_rule_of_another_form_is_written_anew_unless_a_unit_would_be_lost_or_it_is_somebody_elses()
    {
        let (two, three) = (app(r#""blue", "green""#), app(r#""blue", "green", "red""#));
        let rule = polkit_rule(&two);
        assert_eq!(is_current(&two, &rule), Ok(true));
        let older = rule.replace("\"stop\", ", "\"stop\", \"restart\", ");
        assert_ne!(older, rule);
        assert_eq!(is_current(&two, &older), Ok(false));
        assert_eq!(is_current(&three, &older), Ok(false));
        let why = is_current(&two, &polkit_rule(&three)).unwrap_err();
        assert!(why.starts_with("it names web@red.service, "), "{why}");
        for foreign in [
            "",
            "// a rule\n",
            "// Made by slotctl for the app web: nothing\n",
        ] {
            assert_eq!(
                is_current(&two, foreign),
                Err("it is not slotctl's".to_owned()),
                "{foreign}"
            );
        }
    }
}
