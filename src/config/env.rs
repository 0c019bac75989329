//! Which environment variables are whose.

/// Whether the shell and systemd take it for the name of a variable (environ(7), "portable" names).
#[must_use]
pub fn is_env_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether slot or systemd sets the variable for each run of a slot, so that no file may.
///
/// systemd's are those of its protocols (sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3), systemd.exec(5)): an
/// app that got another's would talk to the wrong socket.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    name.starts_with("SLOT_")
        || matches!(
            name,
            "PORT"
                | "INTERNAL_PORT"
                | "SOCKET"
                | "LISTEN_FDS"
                | "LISTEN_FDNAMES"
                | "LISTEN_PID"
                | "NOTIFY_SOCKET"
                | "WATCHDOG_PID"
                | "WATCHDOG_USEC"
                | "CREDENTIALS_DIRECTORY"
                | "INVOCATION_ID"
                | "JOURNAL_STREAM"
        )
}
