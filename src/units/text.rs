//! Words and assignments as unit files take them (systemd.syntax(7), systemd.service(5) "Command lines").

use std::path::Path;

use super::UnitFile;

/// A word of `ExecStart=:…`: no variable is replaced there, but `%` and quotes have a meaning.
pub(super) fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@$^{}~".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        quoted(text)
    }
}

/// One assignment of `Environment=`, where a dollar is only a dollar.
pub(super) fn assignment(name: &str, value: &str) -> String {
    quoted(&format!("{name}={value}"))
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '%' => out.push_str("%%"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// What an app adds to a template that the package brings: the `slotctl` command that its unit is for, and other settings, each in a line.
pub(super) fn drop_in(unit: &str, source: &Path, command: &str, settings: &str) -> UnitFile {
    let stem = unit.trim_end_matches(".service");
    UnitFile {
        path: format!("{unit}.d/10-slot.conf"),
        text: format!(
            "# Made by slot-generator out of {}: what is changed here is lost.\n\
             # `systemctl edit {stem}` adds to it.\n\
             [Service]\n\
             ExecStart=\n\
             ExecStart=:/usr/bin/slotctl {command}\n\
             {settings}",
            source.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_only_where_they_must_be() {
        for (text, written) in [
            ("./server", "./server"),
            ("--bind=127.0.0.1:$PORT", "--bind=127.0.0.1:$PORT"),
            ("", "\"\""),
            (";", "\";\""),
            ("two words", "\"two words\""),
            ("100%", "\"100%%\""),
            ("a\"b\\c\nd", "\"a\\\"b\\\\c\\nd\""),
            ("it's", "\"it's\""),
            ("ü", "\"ü\""),
        ] {
            assert_eq!(word(text), written);
        }
    }
}
