//! The polkit rule by which slotd, which is not root, may start and stop an app's units.
//!
//! **Invariant:** only units that exist are named. With a name that has no unit, `StartTransientUnit` would pass the
//! same rule and run anything as root. So the rule is written after the app's file and removed before it,
//! and both kinds of unit are installed, or masked, as long as the file or the rule is there.

use std::path::{Path, PathBuf};

use super::{service, socket};
use crate::config::App;
use crate::deploy::AppName;

/// Where the rules are.
pub const POLKIT_RULES: &str = "/etc/polkit-1/rules.d";

/// Where that of an app belongs.
#[must_use]
pub fn polkit_rule_path(name: &AppName) -> PathBuf {
    Path::new(POLKIT_RULES).join(format!("60-slot-app-{name}.rules"))
}

/// The name of the app whose rule a file is.
#[must_use]
pub fn app_of_rule(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix("60-slot-app-")?.strip_suffix(".rules")
}

/// How the text of each begins.
const MADE: &str = "// Made by slotctl for the app ";

/// The units that a rule names, by its text, whichever version of slotctl wrote it; `None` if another hand did.
#[must_use]
pub fn units_of_rule(text: &str) -> Option<Vec<&str>> {
    let (_, list) = text.strip_prefix(MADE)?.split_once("var units = [")?;
    let (list, _) = list.split_once(']')?;
    Some(
        list.split(',')
            .map(|unit| unit.trim().trim_matches('"'))
            .collect(),
    )
}

/// Its text: start, stop and reset-failed of exactly this app's units, for the user `slot` (polkit(8)). slotd restarts nothing; who may stop a unit
/// may freeze it, and who may start it may thaw it: PID 1 asks for both by those names.
///
/// Those of builds, fetches, staging, hooks and notices are in the package's own rule, which comes and goes with their templates.
/// Sockets are among them whatever `bind` is: a slot that began with `bind = "fd"` has one to stop when the file says otherwise now.
#[must_use]
pub fn polkit_rule(app: &App) -> String {
    let units: Vec<String> = app
        .slots
        .iter()
        .flat_map(|slot| [service(app, slot), socket(app, slot)])
        .map(|unit| format!("\"{unit}\""))
        .collect();
    format!(
        "{MADE}{name}: slotd starts and stops its units, and no others.\n\
         polkit.addRule(function (action, subject) {{\n\
         \x20   if (action.id !== \"org.freedesktop.systemd1.manage-units\" || subject.user !== \"slot\") {{\n\
         \x20       return polkit.Result.NOT_HANDLED;\n\
         \x20   }}\n\
         \x20   var units = [{units}];\n\
         \x20   var verbs = [\"start\", \"stop\", \"reset-failed\"];\n\
         \x20   var unit = action.lookup(\"unit\");\n\
         \x20   var verb = action.lookup(\"verb\");\n\
         \x20   // Calls that name no unit or no verb have neither; they are not these.\n\
         \x20   if (unit && verb && units.indexOf(unit) !== -1 && verbs.indexOf(verb) !== -1) {{\n\
         \x20       return polkit.Result.YES;\n\
         \x20   }}\n\
         \x20   return polkit.Result.NOT_HANDLED;\n\
         }});\n",
        name = app.name,
        units = units.join(", "),
    )
}
