//! slot-machine's command line, as its users' scripts have it.

use std::ffi::OsString;

/// The options of `start` that slot-machine's has too: its scripts write them with one dash, as Go has it.
const OF_SLOT_MACHINE: [&str; 5] = ["config", "repo", "data", "port", "no-proxy"];

/// The words of a command line, those that are written as slot-machine's as slotctl's own.
pub fn as_own(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let (mut is_start, mut ended) = (false, false);
    let own = move |word: OsString| {
        ended |= word == "--";
        let dashed = word.to_str().and_then(|word| word.strip_prefix('-'));
        let name = dashed.map(|rest| rest.split('=').next().unwrap_or(rest));
        let meant = is_start && !ended && name.is_some_and(|it| OF_SLOT_MACHINE.contains(&it));
        is_start |= word == "start";
        match dashed {
            // It takes no value here, and changes nothing with any.
            Some(rest) if meant && rest.starts_with("no-proxy") => "--no-proxy".into(),
            Some(rest) if meant => format!("--{rest}").into(),
            _ => word,
        }
    };
    words.into_iter().map(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_starts_options_may_have_one_dash_and_only_slot_machines() {
        for (line, own) in [
            (
                "slotctl start -config X -repo=Y -no-proxy=true -port 1",
                "slotctl start --config X --repo=Y --no-proxy --port 1",
            ),
            (
                "slotctl start --data -x -listen -configs -- -config",
                "slotctl start --data -x -listen -configs -- -config",
            ),
            ("slotctl deploy -config X", "slotctl deploy -config X"),
            ("slotctl logs -n 5", "slotctl logs -n 5"),
        ] {
            let words = line.split(' ').map(OsString::from);
            let own: Vec<OsString> = own.split(' ').map(OsString::from).collect();
            assert_eq!(as_own(words), own);
        }
    }
}
