//! Paths: whose they are, what a crash has left among them, and how much room they have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::sys::statvfs::statvfs;
use nix::unistd::{Gid, Group, Uid, User};

use super::super::app::APPS;
use super::apps::unseen;
use crate::config::App;
use crate::doctor::{Account, Disk, Kind, Leftover, Owned, Place, Rights, Seen};
use crate::preflight::free_disk;
use crate::units::{POLKIT_RULES, STATE, app_of_rule, polkit_rule_path};

/// What slot's units name.
const GROUPS: [&str; 5] = [
    "slot",
    "slot-observers",
    "slot-router-control",
    "slot-upstream",
    "systemd-journal",
];

/// Whose tokens slotd takes over TCP; it may be absent.
pub const TOKENS: &str = "/etc/slot/api-tokens";
/// By which slotd may start slot's own units.
const RULE: &str = "/usr/share/polkit-1/rules.d/60-slot.rules";
/// By which the bus lets slotd freeze units.
const POLICY: &str = "/usr/share/dbus-1/system.d/slot.conf";

/// What slot's processes are allowed by.
pub fn rights(apps: &BTreeSet<String>) -> Rights {
    let mut missing: BTreeMap<String, Account> = GROUPS
        .iter()
        .filter(|group| matches!(Group::from_name(group), Ok(None)))
        .map(|group| ((*group).to_owned(), Account::Group))
        .collect();
    if let Ok(None) = User::from_name("slot") {
        missing.insert("slot".to_owned(), Account::User);
    }
    let rules = fs::read_dir(POLKIT_RULES).ok().map(|listed| {
        let rules = listed.flatten().filter_map(|entry| {
            let path = entry.path();
            let name = app_of_rule(&path)?.to_owned();
            (!apps.contains(&name)).then_some((name, path))
        });
        rules.collect::<BTreeMap<_, _>>()
    });
    Rights {
        missing,
        // Its folder is polkit's own on some distributions.
        rule: Path::new(RULE).try_exists().map_err(|error| unseen(&error)),
        bus: Path::new(POLICY).exists(),
        orphans: rules,
    }
}

/// Every path whose owner and mode matter.
pub fn places(apps: &BTreeMap<String, Option<&App>>) -> Vec<Place> {
    let mut places = vec![
        place("/run/slot", Kind::Made("root", "root", 0o755)),
        place("/run/slot/slotd", Kind::Made("slot", "slot", 0o755)),
        place("/run/slot/table.json", Kind::Symlink("slotd/table.json")),
        place(STATE, Kind::Made("root", "slot", 0o1770)),
        place("/etc/slot", Kind::Settings),
        place("/etc/slot/machine.toml", Kind::Settings),
        place(APPS, Kind::Settings),
        place(RULE, Kind::Settings),
        place(POLICY, Kind::Settings),
    ];
    if Path::new(TOKENS).exists() {
        places.push(place(TOKENS, Kind::Secret));
    }
    let mut above = BTreeSet::new();
    for (name, app) in apps {
        let root = Path::new(STATE).join(name);
        places.push(place(
            Path::new(APPS).join(format!("{name}.toml")),
            Kind::Settings,
        ));
        let files = ["state.json", "history.jsonl", "releases", "live", "prev"].map(str::to_owned);
        let slots = app
            .iter()
            .flat_map(|app| &app.slots)
            .map(ToString::to_string);
        for file in files.into_iter().chain(slots) {
            places.push(place(root.join(file), Kind::Slotd));
        }
        places.push(place(&root, Kind::OfApp));
        if let Ok(name) = name.parse() {
            places.push(place(polkit_rule_path(&name), Kind::Settings));
        }
        for secret in app.iter().flat_map(|app| secrets(app)) {
            above.extend(secret.ancestors().skip(1).map(Path::to_owned));
            places.push(place(secret, Kind::Secret));
        }
    }
    places.extend(above.into_iter().map(|path| place(path, Kind::Above)));
    places
}

/// The files of an app that PID 1 reads for one of its units.
fn secrets(app: &App) -> BTreeSet<PathBuf> {
    let env = app.env_file.as_deref();
    let key = app
        .remote
        .as_ref()
        .and_then(|remote| remote.deploy_key.as_deref());
    let notices = app
        .notices
        .iter()
        .filter_map(|receiver| receiver.secret_file.as_deref());
    let named = env.into_iter().chain(key).chain(notices);
    // A relative one is a file of the release.
    named
        .filter(|path| path.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

fn place(path: impl AsRef<Path>, kind: Kind) -> Place {
    let path = path.as_ref().to_owned();
    let found = match (fs::symlink_metadata(&path), kind) {
        (Err(error), _)
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        (Err(error), _) => Err(unseen(&error)),
        (Ok(_), Kind::Symlink(to)) if fs::read_link(&path).is_ok_and(|is| is == Path::new(to)) => {
            Ok(Some(Owned::default()))
        }
        (Ok(_), Kind::Symlink(_)) => Ok(None),
        // A secret may be a symlink: what matters is where it ends.
        (Ok(_), Kind::Secret | Kind::Above) => fs::metadata(&path)
            .map(|about| Some(owned(&about)))
            .map_err(|error| unseen(&error)),
        (Ok(about), _) => Ok(Some(owned(&about))),
    };
    Place { path, kind, found }
}

fn owned(about: &fs::Metadata) -> Owned {
    let user = User::from_uid(Uid::from_raw(about.uid())).ok().flatten();
    let group = Group::from_gid(Gid::from_raw(about.gid())).ok().flatten();
    Owned {
        user: user.map_or_else(|| about.uid().to_string(), |user| user.name),
        group: group.map_or_else(|| about.gid().to_string(), |group| group.name),
        mode: about.mode() & 0o7777,
    }
}

/// Files that were to take another's place.
pub fn leftovers(apps: &BTreeSet<String>) -> Vec<Leftover> {
    let mut folders: Vec<PathBuf> = apps
        .iter()
        .map(|name| Path::new(STATE).join(name))
        .collect();
    // Not the folder of app files, where an administrator's own `web.toml.new` may be.
    folders.extend(["/run/slot/slotd", POLKIT_RULES].map(PathBuf::from));
    let mut found = Vec::new();
    for folder in folders {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            // Of polkit's folder slot's own alone.
            let is_own = folder != Path::new(POLKIT_RULES) || name.starts_with("60-slot-app-");
            let Ok(about) = fs::symlink_metadata(entry.path()) else {
                continue;
            };
            if name.ends_with(".new") && is_own && !about.is_dir() {
                let age = about
                    .modified()
                    .ok()
                    .and_then(|then| SystemTime::now().duration_since(then).ok());
                found.push((entry.path(), age.map_or(0, |age| age.as_secs())));
            }
        }
    }
    if found.is_empty() {
        return Vec::new();
    }
    let open = open_files();
    let left = found.into_iter().map(|(path, age)| Leftover {
        open: open.contains(&path),
        path,
        age,
    });
    left.collect()
}

/// What processes have open, as far as it may be seen (proc(5), `/proc/pid/fd`).
fn open_files() -> BTreeSet<PathBuf> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbered = processes.filter(|entry| {
        entry
            .file_name()
            .to_string_lossy()
            .bytes()
            .all(|it| it.is_ascii_digit())
    });
    let descriptors = numbered.flat_map(|entry| {
        fs::read_dir(entry.path().join("fd"))
            .into_iter()
            .flatten()
            .flatten()
    });
    descriptors
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .collect()
}

/// Directories of releases that no registered app has, and what they take.
pub fn orphans(apps: &BTreeSet<String>) -> Seen<BTreeMap<PathBuf, u64>> {
    let listed = match fs::read_dir(STATE) {
        Ok(listed) => listed,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(unseen(&error)),
    };
    let others = listed.flatten().filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_app =
            entry.path().join("releases").is_dir() || entry.path().join("state.json").exists();
        is_app && !name.starts_with('.') && !apps.contains(&name)
    });
    Ok(others
        .map(|entry| (entry.path(), size(&entry.path())))
        .collect())
}

/// What a tree takes on disk, in bytes.
fn size(path: &Path) -> u64 {
    let mut size = 0;
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(about) = entry.metadata() else {
                continue;
            };
            size += about.blocks() * 512;
            if about.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    size
}

/// The file systems that slot writes on.
pub fn disks() -> Vec<Disk> {
    let disks = [(STATE, false), ("/run/slot/slotd", true)];
    let seen = disks.into_iter().filter_map(|(path, volatile)| {
        let about = statvfs(path).ok()?;
        let counts_files = about.files() > 0 && !volatile;
        Some(Disk {
            path: path.into(),
            free: free_disk(path.as_ref()).ok()?,
            files: counts_files.then(|| about.files_available()),
            volatile,
        })
    });
    seen.collect()
}

/// When slot last wrote something of these apps, milliseconds since the epoch.
pub fn newest(apps: &BTreeSet<String>) -> Option<u64> {
    let files = apps.iter().flat_map(|name| {
        ["state.json", "history.jsonl"].map(|file| Path::new(STATE).join(name).join(file))
    });
    let times = files.filter_map(|path| {
        let then = fs::symlink_metadata(path).ok()?.modified().ok()?;
        let since = then.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        u64::try_from(since.as_millis()).ok()
    });
    times.max()
}
