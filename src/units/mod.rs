//! An app as systemd's own files: the template unit, what differs by slot, and the polkit rule that lets slotd start it.
//!
//! **Invariant:** text out of an [`App`], the same for the same app; nothing is read, written or asked, but by [`generate`] and [`differing`].

mod apart;
mod fetch;
mod generate;
mod hook;
mod listener;
mod notify;
mod polkit;
mod setup;
mod stage;
mod text;
mod watch;

use std::fmt::Write as _;
use std::path::Path;

use crate::config::{App, Bind, Ready, systemd_span};
use crate::deploy::{AppName, SlotName};
use text::{assignment, word};

pub use apart::{GENERATED, differing};
pub use fetch::{fetch_service, fetch_socket};
pub use generate::{GenerateError, generate};
pub use hook::{hook_service, hook_socket};
pub use listener::{
    LISTENERS, is_listener, listener, listener_drop_in, listener_path, listener_socket,
};
pub use notify::{notify_service, notify_socket};
pub use polkit::{POLKIT_RULES, app_of_rule, polkit_rule, polkit_rule_path, units_of_rule};
pub use setup::{setup_service, setup_socket};
pub use stage::{STAGING, stage_service, stage_socket};
pub use watch::{watch_service, watch_triggers, watch_units};

/// Where the apps' runtime directories are, and slotd's socket.
pub const RUN: &str = "/run/slot";
/// Where the apps' releases are.
pub const STATE: &str = "/var/lib/slot";

/// An absolute `env_file` in `$CREDENTIALS_DIRECTORY` of its app.
pub const CREDENTIAL: &str = "env_file";

/// A file of the generator's output directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitFile {
    /// Relative to that directory: `web@.service`, `web@blue.service.d/10-slot.conf`.
    pub path: String,
    /// Its content.
    pub text: String,
}

/// What the sandbox of every app is made of. `systemctl edit <app>@` loosens it for one.
///
/// Left out on purpose: MemoryDenyWriteExecute= (just-in-time compilers) and ProcSubset=pid (/proc/meminfo).
const SANDBOX: &str = "\
NoNewPrivileges=yes
CapabilityBoundingSet=
LockPersonality=yes
PrivateDevices=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
";

/// The name of a slot's unit: `web@blue.service`.
#[must_use]
pub fn service(app: &App, slot: &SlotName) -> String {
    format!("{}@{slot}.service", app.name)
}

/// The name of a slot's socket unit, which is masked but for `bind = "fd"`: `web@blue.socket`.
#[must_use]
pub fn socket(app: &App, slot: &SlotName) -> String {
    format!("{}@{slot}.socket", app.name)
}

/// Everything that the generator writes for an app whose file is `source`.
///
/// An app without sockets has a masked one: a polkit rule of before, when its file said `bind = "fd"`, may still let slotd's user
/// start `web@blue.socket`, and no name that it may start may be free (see [`stand_in`]).
#[must_use]
pub fn render(app: &App, source: &Path) -> Vec<UnitFile> {
    let mut files = vec![
        UnitFile {
            path: format!("{}@.service", app.name),
            text: template(app, source),
        },
        match app.bind {
            Bind::Fd => UnitFile {
                path: format!("{}@.socket", app.name),
                text: socket_template(app, source),
            },
            Bind::Port | Bind::Unix => masked_socket(&app.name),
        },
    ];
    for (slot, ports) in &app.ports {
        files.push(UnitFile {
            path: format!("{}.d/10-slot.conf", service(app, slot)),
            text: format!(
                "[Service]\nEnvironment=PORT={} INTERNAL_PORT={}\n",
                ports.port, ports.internal
            ),
        });
    }
    files.extend(setup::setup_drop_in(app, source));
    files.extend(fetch::fetch_drop_in(app, source));
    files.extend(stage::stage_drop_in(app, source));
    files.extend(hook::hook_drop_in(app, source));
    files.extend(notify::notify_drop_in(app, source));
    files.extend(watch::watch(app, source));
    files
}

/// What stands in for an app whose file is wrong: a unit that says so and does not start, and a socket that is masked.
///
/// A slot that ends while it stands in is tried again until the file is right: `Restart=` does not count as a start by hand.
///
/// Without it the names would be free while the polkit rule still lets slotd's user start them, and with
/// `StartTransientUnit` that user could make up a unit of such a name that runs as root.
#[must_use]
pub fn stand_in(name: &AppName, source: &Path, problem: &str) -> Vec<UnitFile> {
    let source = source.display();
    let problem = problem.replace(['\n', '\r'], " ");
    let service = format!(
        "# {problem}\n\
         [Unit]\n\
         Description=Slot %i of {name}, whose file is wrong ({source})\n\
         Documentation=man:slot.toml(5) man:slot@.service(5)\n\
         SourcePath={source}\n\
         RefuseManualStart=yes\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         Slice=slot.slice\n\
         Type=exec\n\
         ExecStart=/bin/false\n\
         # A slot that ran before the file was wrong, and ends, is back as soon as the file is right and read.\n\
         Restart=always\n\
         RestartSec=2s\n\
         DynamicUser=yes\n\
         User=slot-app-{name}\n"
    );
    vec![
        UnitFile {
            path: format!("{name}@.service"),
            text: service,
        },
        masked_socket(name),
    ]
}

/// An empty file is a mask (systemd.unit(5)).
fn masked_socket(name: &AppName) -> UnitFile {
    UnitFile {
        path: format!("{name}@.socket"),
        text: String::new(),
    }
}

fn header(app: &App, source: &Path, what: &str) -> String {
    let source = source.display();
    format!(
        "# Made by slot-generator out of {source}: what is changed here is lost.\n\
         # `systemctl edit {name}@` adds to it for every slot of {name}.\n\
         [Unit]\n\
         Description={what} %i of {name}\n\
         Documentation=man:slot@.service(5) man:slot.toml(5)\n\
         SourcePath={source}\n",
        name = app.name,
    )
}

fn template(app: &App, source: &Path) -> String {
    let name = &app.name;
    let mut unit = header(app, source, "Slot");
    unit.push_str("After=network.target\n");
    if app.bind == Bind::Fd {
        // Wants=, not Requires=: to stop a slot its socket is stopped first.
        let _ = writeln!(unit, "Wants={name}@%i.socket");
    }
    let _ = write!(
        unit,
        "# Without a release there is nothing to run. A Condition would count as success.\n\
         AssertPathExists={STATE}/{name}/%i\n\
         # A crash loop is seen by slotd; a limit here would end in a unit that nothing starts again.\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         Slice=slot.slice\n"
    );
    unit.push_str(match app.ready {
        Ready::Notify => "Type=notify\nNotifyAccess=main\n",
        Ready::Health => "Type=exec\n",
    });
    unit.push_str(&command(app));
    let _ = write!(
        unit,
        "Environment=SLOT_MACHINE=1 SLOT_APP={name} SLOT_NAME=%i\n{}",
        match app.bind {
            Bind::Unix => format!("Environment=SOCKET={RUN}/{name}/%i/http.sock\n"),
            Bind::Port | Bind::Fd => String::new(),
        }
    );
    for (variable, value) in &app.env {
        let _ = writeln!(unit, "Environment={}", assignment(variable, value));
    }
    let _ = write!(
        unit,
        "TimeoutStartSec={start}\n\
         TimeoutStopSec={stop}\n\
         # SIGTERM to the app's main process alone, SIGKILL to whatever is left of it.\n\
         KillMode=mixed\n\
         SuccessExitStatus=143\n\
         Restart=always\n\
         RestartSec=1s\n\
         SyslogIdentifier={name}@%i\n\
         LogExtraFields=SLOT_APP={name} SLOT_NAME=%i\n\
         \n",
        start = systemd_span(app.start_timeout),
        stop = systemd_span(app.stop_timeout),
    );
    unit.push_str(&identity(app));
    let _ = write!(
        unit,
        "# Of all releases it sees its own.\n\
         TemporaryFileSystem={STATE}:ro\n\
         BindReadOnlyPaths={STATE}/{name}\n\
         {SANDBOX}"
    );
    unit
}

/// `:` keeps systemd from replacing `$NAME`, which is the launcher's to do: it knows the env file.
fn command(app: &App) -> String {
    let mut line = format!(
        "ExecStart=:/usr/bin/slotctl launch --app {} --slot %i --root {STATE}",
        app.name
    );
    if let Some(file) = &app.env_file {
        let _ = write!(line, " --env-file {}", word(file));
    }
    for directory in &app.shared_dirs {
        let _ = write!(line, " --shared-dir {}", word(directory));
    }
    line.push_str(" --");
    for argument in &app.command {
        let _ = write!(line, " {}", word(argument));
    }
    line.push('\n');
    if let Some(file) = app.env_file.as_deref().filter(|file| file.starts_with('/')) {
        // The rest of the line is the path, with nothing quoted; the parser lets no character through that would end it.
        let _ = writeln!(
            line,
            "# So that the file can be root's own, 0600. Nothing of it is in the unit.\nLoadCredential={CREDENTIAL}:{}",
            file.replace('%', "%%")
        );
    }
    line
}

/// Whom it runs as and what it may write.
fn identity(app: &App) -> String {
    let name = &app.name;
    let mut lines = match &app.user {
        // The name is given because without one the unit's prefix would be it, and an existing user of that name
        // would be used (systemd.exec(5), DynamicUser=).
        None => format!("DynamicUser=yes\nUser=slot-app-{name}\nProtectHome=yes\n"),
        Some(user) => format!("User={user}\nProtectHome=read-only\n"),
    };
    if app.bind == Bind::Unix {
        let _ = write!(
            lines,
            "# The router reaches the socket as a member of this group.\n\
             Group=slot-upstream\n\
             UMask=0007\n\
             RuntimeDirectory=slot/{name}/%i\n\
             RuntimeDirectoryMode=0750\n\
             # Others have this group too: of all sockets it sees its own.\n\
             TemporaryFileSystem={RUN}:ro\n\
             BindPaths={RUN}/{name}/%i\n"
        );
    }
    let _ = write!(
        lines,
        "# $STATE_DIRECTORY: its data, shared by its slots.\n\
         StateDirectory=slot-app/{name}\n\
         StateDirectoryMode=0750\n"
    );
    lines
}

fn socket_template(app: &App, source: &Path) -> String {
    let name = &app.name;
    format!(
        "{header}\
         \n\
         [Socket]\n\
         Slice=slot.slice\n\
         ListenStream={RUN}/{name}/%i/http.sock\n\
         FileDescriptorName=http\n\
         SocketMode=0660\n\
         SocketGroup=slot-upstream\n\
         RemoveOnStop=yes\n\
         # Connections that wait while a slot crashes and starts again must not be what closes the queue.\n\
         TriggerLimitIntervalSec=0\n",
        header = header(app, source, "Socket of slot"),
    )
}
