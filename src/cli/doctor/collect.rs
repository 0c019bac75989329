//! Everything that the doctor goes by, of about one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::{Method, StatusCode};

use super::super::app::{systemctl, systemd_runs};
use super::super::client::{Client, ClientError, SOCKET, empty};
use super::super::listeners::{holders, taken_ports};
use super::{apps, paths, tcp, units};
use crate::config::{App, Machine};
use crate::doctor::{AppFacts, Facts, Held, Seen, Slotd, UnitFacts};
use crate::telemetry::chain;
use crate::traffic::Routers;
use crate::wire::api::Apps;
use crate::wire::control::Stats;
use crate::wire::table::Table;

/// slotd answers within that, or hangs: it waits for a router that does, which takes five seconds.
const ANSWER: Duration = Duration::from_secs(15);

/// Looks at the machine.
pub async fn facts() -> Facts {
    let root = nix::unistd::geteuid().is_root();
    let booted = systemd_runs();
    let container = Path::new("/run/systemd/container").exists();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut of_apps = BTreeMap::new();
    for (name, (file, app)) in apps::files() {
        let about = apps::facts(&name, file, app, boot.trim());
        of_apps.insert(name, about);
    }
    let names: BTreeSet<String> = of_apps.keys().cloned().collect();
    let sockets = units::sockets();
    let found = units::units(&sockets, &by_name(&of_apps));
    let systemd = match &found {
        Ok(_) => version(),
        Err(error) => Err(format!("{error:#}")),
    };
    let units = found.unwrap_or_default();
    let slotd_pid = units.get("slotd.service").map_or(0, |unit| unit.pid);
    let polkit = units
        .get("polkit.service")
        .is_some_and(UnitFacts::is_loaded);
    if root && slotd_pid != 0 && polkit {
        for (name, about) in &mut of_apps {
            let slot = about.app.as_ref().ok().and_then(|app| app.slots.first());
            let unit = slot.map(|slot| format!("{name}@{slot}.service"));
            about.may_start = unit.and_then(|unit| apps::may_start(slotd_pid, &unit));
        }
    }
    let is_socket =
        |path: &str| fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_socket());
    let api = is_socket(SOCKET);
    let runs = units.get("slotd.service").is_some_and(UnitFacts::is_up);
    Facts {
        now_ms: now_ms(),
        root,
        booted,
        container,
        systemd,
        listeners: units::listeners(&sockets),
        api,
        inet: is_socket("/run/slot/inet.sock"),
        // A connection to the socket of one that is down would start it.
        slotd: if runs && api {
            slotd().await
        } else {
            Slotd::Down
        },
        tcp: tcp::facts(root, &units),
        routers: routers(root).await,
        table: table(),
        machine: Machine::read(Path::new("/etc/slot/machine.toml"))
            .map(drop)
            .map_err(|error| chain(&error)),
        orphans: paths::orphans(&names),
        rights: paths::rights(&names),
        places: paths::places(&by_name(&of_apps)),
        leftovers: paths::leftovers(&names),
        disks: paths::disks(),
        clock_is_set: if container { Ok(None) } else { clock() },
        newest_ms: paths::newest(&names),
        ports: ports(&of_apps),
        units,
        apps: of_apps,
    }
}

/// The apps with what their files say, where those are right.
fn by_name(apps: &BTreeMap<String, AppFacts>) -> BTreeMap<String, Option<&App>> {
    let named = apps
        .iter()
        .map(|(name, about)| (name.clone(), about.app.as_ref().ok().map(|app| &**app)));
    named.collect()
}

fn now_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// `systemd 252 (252.39-1~deb12u1)`.
fn version() -> Seen<u32> {
    let said = systemctl(&["--version"]).map_err(|error| format!("{error:#}"))?;
    let number = said.split_ascii_whitespace().nth(1).unwrap_or_default();
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().map_err(|_| {
        format!(
            "`systemctl --version` says {}",
            said.lines().next().unwrap_or_default()
        )
    })
}

async fn slotd() -> Slotd {
    let client = Client::new(Path::new(SOCKET), None);
    let asked = client.ask::<Apps>(Method::GET, "/apps", empty());
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(Ok(apps)) => Slotd::Says(Box::new(apps)),
        Ok(Err(
            ClientError::Problem {
                status: StatusCode::FORBIDDEN,
                ..
            }
            | ClientError::Forbidden { .. },
        )) => Slotd::Forbidden,
        Ok(Err(ClientError::Absent { .. })) => {
            Slotd::Silent(format!("nothing answers at {SOCKET}"))
        }
        Ok(Err(error)) => Slotd::Silent(chain(&error)),
        Err(_) => Slotd::Silent(format!(
            "no answer at {SOCKET} within {} s",
            ANSWER.as_secs()
        )),
    }
}

async fn routers(root: bool) -> Seen<BTreeMap<String, Result<Stats, String>>> {
    let told = Routers::in_directory(PathBuf::from("/run/slot/router"))
        .stats()
        .await;
    match told {
        Ok(told) => Ok(told
            .into_iter()
            .map(|(name, stats)| (name, stats.map_err(|error| chain(&error))))
            .collect()),
        Err(_) if !root => {
            Err("only root and slotd may ask the router's instances: use sudo".to_owned())
        }
        Err(error) => Err(chain(&error)),
    }
}

fn table() -> Seen<Option<Table>> {
    match fs::read("/run/slot/slotd/table.json") {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| error.to_string()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(apps::unseen(&error)),
    }
}

/// Whether the kernel's clock is synchronised, as timedatectl(1) says; `None` if nothing is there that would.
fn clock() -> Seen<Option<bool>> {
    let words = ["show", "--property=NTP", "--property=NTPSynchronized"];
    let asked = Command::new("timedatectl").args(words).output();
    let said = asked.map_err(|error| format!("timedatectl cannot be run: {error}"))?;
    if !said.status.success() {
        return Err(format!(
            "timedatectl does not say: {}",
            String::from_utf8_lossy(&said.stderr).trim()
        ));
    }
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let is = |line: &str| text.lines().any(|it| it == line);
    Ok(match (is("NTPSynchronized=yes"), is("NTP=yes")) {
        (true, _) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    })
}

/// Who has the ports of apps.
fn ports(apps: &BTreeMap<String, AppFacts>) -> BTreeMap<u16, Held> {
    let taken = taken_ports();
    let apps = apps.values().filter_map(|about| about.app.as_ref().ok());
    let all = apps
        .flat_map(|app| app.ports.values())
        .flat_map(|ports| [ports.port, ports.internal]);
    let held = all.filter(|port| taken.contains(port)).map(|port| {
        let holders = holders(port);
        let held = Held {
            who: holders.iter().map(ToString::to_string).collect(),
            units: holders
                .into_iter()
                .filter_map(|holder| holder.unit)
                .collect(),
        };
        (port, held)
    });
    held.collect()
}
