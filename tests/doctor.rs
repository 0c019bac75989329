//! What the doctor makes of a machine: a healthy one has nothing to say, and of a healthy one with one thing wrong it names that thing,
//! what it is on, why it matters and what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use slot::config::App;
use slot::doctor::{
    Account, AppFacts, Disk, Facts, Finding, Held, Kind, Leftover, Level, Link, Listener, Mend,
    Owned, Place, PolkitRule, Rights, Slotd, Stand, State, Tcp, Tokens, UnitFacts, UnitText,
    examine,
};
use slot::units::{polkit_rule, render};
use slot::wire::api::{Apps, SlotStatus, Status};
use slot::wire::control::Stats;
use slot::wire::table::{self, Table};

const WEB: &str = "name = \"web\"\ncommand = \"./server\"\n[ports]\nblue = 20001\ngreen = 20002\n";

fn up(sub: &str) -> UnitFacts {
    UnitFacts {
        load: "loaded".to_owned(),
        active: "active".to_owned(),
        sub: sub.to_owned(),
        result: "success".to_owned(),
        installed: "enabled".to_owned(),
        pid: 100,
        ..UnitFacts::default()
    }
}

fn idle() -> UnitFacts {
    UnitFacts {
        active: "inactive".to_owned(),
        sub: "dead".to_owned(),
        installed: "static".to_owned(),
        pid: 0,
        ..up("dead")
    }
}

fn slot(name: &str, weight: u8) -> table::Slot {
    serde_json::from_value(
        serde_json::json!({ "name": name, "weight": weight, "upstream": "127.0.0.1:1" }),
    )
    .expect("a slot of a table")
}

fn web() -> AppFacts {
    let file = PathBuf::from("/etc/slot/apps/web.toml");
    let app = App::parse(WEB, "web.toml").expect("a right file");
    let texts = render(&app, &file).into_iter().map(|unit| UnitText {
        path: unit.path,
        found: Some(unit.text.clone()),
        made: unit.text,
    });
    let link = |release: &str| Link {
        release: release.to_owned(),
        there: true,
    };
    let links = [
        ("blue", "aaaaaaaa"),
        ("green", "bbbbbbbb"),
        ("live", "bbbbbbbb"),
        ("prev", "aaaaaaaa"),
    ];
    AppFacts {
        texts: texts.collect(),
        state: State::Stands(Box::new(Stand {
            active: Some("green".to_owned()),
            live: Some("bbbbbbbb".to_owned()),
            prev: Some("aaaaaaaa".to_owned()),
            weights: [("blue".to_owned(), 0), ("green".to_owned(), 100)].into(),
            busy: false,
        })),
        aside: Vec::new(),
        links: Ok(links
            .map(|(name, release)| (name.to_owned(), link(release)))
            .into()),
        unrecorded: Ok(BTreeSet::new()),
        largest: 1 << 20,
        triggers: Vec::new(),
        rule: PolkitRule {
            path: "/etc/polkit-1/rules.d/60-slot-app-web.rules".into(),
            made: polkit_rule(&app),
            found: Ok(Some(polkit_rule(&app))),
        },
        may_start: Some(true),
        taken_user: None,
        file,
        app: Ok(Box::new(app)),
    }
}

fn owned(user: &str, group: &str, mode: u32) -> Owned {
    Owned {
        user: user.to_owned(),
        group: group.to_owned(),
        mode,
    }
}

fn place(path: &str, kind: Kind, found: Owned) -> Place {
    Place {
        path: path.into(),
        kind,
        found: Ok(Some(found)),
    }
}

/// A machine with one app, as it should be.
fn healthy() -> Facts {
    let units = [
        ("slot.slice", up("active")),
        ("slot-inet.socket", up("running")),
        ("slot-inet.service", up("running")),
        ("slotd.socket", up("running")),
        ("slotd.service", up("running")),
        (
            "slotd-tcp.socket",
            UnitFacts {
                installed: "disabled".to_owned(),
                ..idle()
            },
        ),
        ("slot-router.socket", up("running")),
        ("slot-router@1.service", up("running")),
        ("polkit.service", idle()),
        ("web@blue.service", idle()),
        ("web@green.service", up("running")),
        (
            "web@blue.socket",
            UnitFacts {
                load: "masked".to_owned(),
                ..idle()
            },
        ),
        ("slot-setup@web.service", idle()),
    ];
    let stats = Stats {
        revision: Some(7),
        accepting: true,
        ..Stats::default()
    };
    let part = table::App {
        name: "web".to_owned(),
        generation: 2,
        routes: Vec::new(),
        slots: vec![slot("blue", 0), slot("green", 100)],
        hold_ms: Some(0),
        limits: table::Limits::default(),
        sticky: None,
        preview: None,
    };
    let status = Status {
        app: "web".to_owned(),
        ..Status::default()
    };
    Facts {
        now_ms: 1_000_000,
        root: true,
        booted: true,
        container: false,
        systemd: Ok(252),
        units: units.map(|(name, unit)| (name.to_owned(), unit)).into(),
        listeners: [(
            "slot-router.socket".to_owned(),
            vec![Listener {
                port: 80,
                listened: true,
                ..Listener::default()
            }],
        )]
        .into(),
        api: true,
        inet: true,
        slotd: Slotd::Says(Box::new(Apps {
            apps: vec![status],
            broken: BTreeMap::new(),
        })),
        tcp: Tcp {
            addresses: vec!["127.0.0.1:7568".parse().expect("an address")],
            holders: Vec::new(),
            tokens: Ok(Tokens {
                known: Ok(0),
                changed: false,
            }),
        },
        routers: Ok([("1".to_owned(), Ok(stats))].into()),
        table: Ok(Some(Table {
            revision: 7,
            apps: vec![part],
        })),
        machine: Ok(()),
        apps: [("web".to_owned(), web())].into(),
        orphans: Ok(BTreeMap::new()),
        rights: Rights {
            missing: BTreeMap::new(),
            rule: Ok(true),
            bus: true,
            orphans: Some(BTreeMap::new()),
        },
        places: vec![
            place(
                "/run/slot",
                Kind::Made("root", "root", 0o755),
                owned("root", "root", 0o755),
            ),
            place(
                "/etc/slot/apps/web.toml",
                Kind::Settings,
                owned("root", "root", 0o644),
            ),
            place(
                "/var/lib/slot/web",
                Kind::OfApp,
                owned("root", "slot", 0o1775),
            ),
            place(
                "/var/lib/slot/web/state.json",
                Kind::Slotd,
                owned("slot", "slot", 0o644),
            ),
            place(
                "/etc/slot/web.env",
                Kind::Secret,
                owned("root", "root", 0o600),
            ),
            place("/etc/slot", Kind::Above, owned("root", "root", 0o755)),
        ],
        leftovers: Vec::new(),
        disks: vec![Disk {
            path: "/var/lib/slot".into(),
            free: 1 << 30,
            files: Some(1 << 20),
            volatile: false,
        }],
        clock_is_set: Ok(Some(true)),
        newest_ms: Some(999_000),
        ports: [(
            20002,
            Held {
                who: vec!["server (pid 100)".to_owned()],
                units: vec!["web@green.service".to_owned()],
            },
        )]
        .into(),
    }
}

fn faults(facts: &Facts) -> Vec<Finding> {
    examine(facts)
        .into_iter()
        .filter(|it| it.level != Level::Ok)
        .collect()
}

fn unit<'a>(facts: &'a mut Facts, name: &str) -> &'a mut UnitFacts {
    facts.units.entry(name.to_owned()).or_insert_with(idle)
}

fn app(facts: &mut Facts) -> &mut AppFacts {
    facts.apps.get_mut("web").expect("the app")
}

fn stand(facts: &mut Facts) -> &mut Stand {
    match &mut app(facts).state {
        State::Stands(stand) => stand,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_healthy_machine_has_no_fault_and_says_what_was_looked_at() {
    let findings = examine(&healthy());
    let odd: Vec<&Finding> = findings.iter().filter(|it| it.level != Level::Ok).collect();
    assert!(odd.is_empty(), "{odd:#?}");
    for check in [
        "systemd",
        "polkit",
        "unit",
        "slotd",
        "socket",
        "router",
        "permission",
        "app-file",
        "state",
        "table",
        "port",
        "disk",
        "clock",
    ] {
        assert!(findings.iter().any(|it| it.check == check), "{check}");
    }
}

#[test]
fn a_machine_where_nothing_is_registered_yet_has_no_fault() {
    let mut facts = healthy();
    facts.apps.clear();
    facts.table = Ok(None);
    facts.routers = Ok(BTreeMap::new());
    facts.ports.clear();
    facts.slotd = Slotd::Down;
    facts
        .units
        .retain(|name, _| name.starts_with("slot") || name.starts_with("polkit"));
    for unit in facts.units.values_mut() {
        *unit = UnitFacts {
            installed: "disabled".to_owned(),
            ..idle()
        };
    }
    let faults = faults(&facts);
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn without_systemd_there_is_one_thing_to_say() {
    let findings = examine(&Facts {
        booted: false,
        ..healthy()
    });
    assert_eq!(findings.len(), 1);
    assert!(findings[0].remedy.contains("slotctl start"));
}

/// One thing that is wrong: how to break it, what is found, at which level, on what, and what the remedy has in it.
type Broken = (
    &'static str,
    Level,
    &'static str,
    &'static str,
    fn(&mut Facts),
);

const BROKEN: &[Broken] = &[
    ("systemd", Level::Problem, "systemd", "newer", |facts| {
        facts.systemd = Ok(249)
    }),
    (
        "unit-missing",
        Level::Problem,
        "slotd.socket",
        "reinstall",
        |facts| {
            unit(facts, "slotd.socket").load = "not-found".to_owned();
        },
    ),
    (
        "unit-missing",
        Level::Problem,
        "slot-setup@web.service",
        "reinstall",
        |facts| {
            unit(facts, "slot-setup@web.service").load = "not-found".to_owned();
        },
    ),
    (
        "unit-missing",
        Level::Problem,
        "web@blue.service",
        "slotctl app add",
        |facts| {
            unit(facts, "web@blue.service").load = "not-found".to_owned();
        },
    ),
    (
        "unit-masked",
        Level::Problem,
        "slot-setup@web.service",
        "systemctl unmask slot-setup@web.service",
        |facts| {
            unit(facts, "slot-setup@web.service").load = "masked".to_owned();
        },
    ),
    (
        "unit-broken",
        Level::Problem,
        "web@green.service",
        "systemd-analyze verify",
        |facts| {
            unit(facts, "web@green.service").load = "bad-setting".to_owned();
        },
    ),
    (
        "unit-stale",
        Level::Warning,
        "slot-router@1.service",
        "systemctl daemon-reload",
        |facts| {
            unit(facts, "slot-router@1.service").stale = true;
        },
    ),
    (
        "unit-stale",
        Level::Warning,
        "web@green.service",
        "systemctl daemon-reload",
        |facts| {
            unit(facts, "web@green.service").stale = true;
        },
    ),
    (
        "unit-start-limit",
        Level::Warning,
        "web@green.service",
        "StartLimitIntervalSec=0",
        |facts| {
            unit(facts, "web@green.service").limited = true;
        },
    ),
    (
        "unit-start-limit",
        Level::Warning,
        "slot-router.socket",
        "TriggerLimitIntervalSec=0",
        |facts| {
            unit(facts, "slot-router.socket").limited = true;
        },
    ),
    (
        "unit-failed",
        Level::Warning,
        "slot-router@2.service",
        "reset-failed",
        |facts| {
            unit(facts, "slot-router@2.service").active = "failed".to_owned();
        },
    ),
    (
        "unit-failed",
        Level::Warning,
        "slot-setup@web.service",
        "reset-failed",
        |facts| {
            unit(facts, "slot-setup@web.service").active = "failed".to_owned();
        },
    ),
    (
        "unit-failed",
        Level::Problem,
        "web@green.service",
        "systemctl start web@green.service",
        |facts| {
            unit(facts, "web@green.service").active = "failed".to_owned();
        },
    ),
    (
        "unit-looping",
        Level::Problem,
        "web@green.service",
        "rollback",
        |facts| {
            let unit = unit(facts, "web@green.service");
            (unit.active, unit.sub) = ("activating".to_owned(), "auto-restart".to_owned());
        },
    ),
    // As systemd 254 and later call what comes before and after that.
    (
        "unit-looping",
        Level::Problem,
        "web@green.service",
        "rollback",
        |facts| {
            let unit = unit(facts, "web@green.service");
            (unit.active, unit.sub) = ("activating".to_owned(), "auto-restart-queued".to_owned());
        },
    ),
    (
        "unit-looping",
        Level::Problem,
        "slotd.service",
        "journal",
        |facts| {
            let unit = unit(facts, "slotd.service");
            (unit.active, unit.sub) =
                ("failed".to_owned(), "failed-before-auto-restart".to_owned());
            facts.slotd = Slotd::Down;
        },
    ),
    (
        "unit-replaced",
        Level::Warning,
        "slotd.service",
        "systemctl restart slotd.service",
        |facts| {
            unit(facts, "slotd.service").replaced = Some(true);
        },
    ),
    (
        "unit-replaced",
        Level::Warning,
        "slot-router@1.service",
        "slotctl router upgrade",
        |facts| {
            unit(facts, "slot-router@1.service").replaced = Some(true);
        },
    ),
    (
        "unit-disabled",
        Level::Warning,
        "slot-router.socket",
        "systemctl enable slot-router.socket",
        |facts| {
            unit(facts, "slot-router.socket").installed = "disabled".to_owned();
        },
    ),
    (
        "slotd-down",
        Level::Problem,
        "slotd.service",
        "systemctl enable --now",
        |facts| {
            *unit(facts, "slotd.service") = UnitFacts {
                installed: "enabled".to_owned(),
                ..idle()
            };
            facts.slotd = Slotd::Down;
        },
    ),
    (
        "unit-failed",
        Level::Problem,
        "slotd.service",
        "reset-failed slotd.service",
        |facts| {
            unit(facts, "slotd.service").active = "failed".to_owned();
            facts.slotd = Slotd::Down;
        },
    ),
    (
        "slotd-silent",
        Level::Problem,
        "slotd.service",
        "systemctl restart slotd.service",
        |facts| {
            facts.slotd = Slotd::Silent("no answer".to_owned());
        },
    ),
    ("slotd", Level::Unseen, "slotd.service", "", |facts| {
        facts.slotd = Slotd::Forbidden
    }),
    (
        "app-broken",
        Level::Problem,
        "shop",
        "slotctl --app shop status",
        |facts| {
            let broken = [("shop".to_owned(), "its hosts are web's".to_owned())].into();
            facts.slotd = Slotd::Says(Box::new(Apps {
                apps: Vec::new(),
                broken,
            }));
        },
    ),
    (
        "app-stopped",
        Level::Problem,
        "web@green.service",
        "systemctl start web@green.service",
        |facts| {
            says(facts, "stopped-by-hand");
        },
    ),
    (
        "app-down",
        Level::Problem,
        "web@green.service",
        "slotctl --app web rollback",
        |facts| says(facts, "down: it exited"),
    ),
    ("app-warning", Level::Warning, "web", "status", |facts| {
        let status = Status {
            app: "web".to_owned(),
            warnings: vec!["a hook failed".to_owned()],
            ..Status::default()
        };
        facts.slotd = Slotd::Says(Box::new(Apps {
            apps: vec![status],
            broken: BTreeMap::new(),
        }));
    }),
    (
        "socket-gone",
        Level::Problem,
        "slotd.socket",
        "systemctl restart slotd.socket",
        |facts| facts.api = false,
    ),
    (
        "socket-gone",
        Level::Problem,
        "slot-inet.socket",
        "systemctl restart slot-inet.socket",
        |facts| facts.inet = false,
    ),
    (
        "socket-down",
        Level::Problem,
        "slot-inet.socket",
        "systemctl start slot-inet.socket",
        |facts| *unit(facts, "slot-inet.socket") = idle(),
    ),
    (
        "socket-down",
        Level::Problem,
        "slotd.socket",
        "systemctl enable --now slotd.socket",
        |facts| {
            *unit(facts, "slotd.socket") = UnitFacts {
                installed: "enabled".to_owned(),
                ..idle()
            };
            facts.api = false;
        },
    ),
    (
        "socket-down",
        Level::Problem,
        "slot-router.socket",
        "systemctl enable --now slot-router.socket",
        |facts| {
            public(
                facts,
                Listener {
                    port: 80,
                    ..Listener::default()
                },
            )
        },
    ),
    (
        "socket-taken",
        Level::Problem,
        "slot-router.socket",
        "ListenStream=",
        |facts| {
            public(
                facts,
                Listener {
                    port: 80,
                    listened: true,
                    holders: vec!["nginx (pid 9)".to_owned()],
                    router: None,
                },
            );
        },
    ),
    (
        "socket-stranded",
        Level::Problem,
        "slot-router.socket",
        "systemctl restart slot-router.socket",
        |facts| {
            let router = Some("slot-router@1.service".to_owned());
            public(
                facts,
                Listener {
                    port: 80,
                    listened: true,
                    holders: vec!["slot-router (pid 9)".to_owned()],
                    router,
                },
            );
        },
    ),
    (
        "socket-silent",
        Level::Problem,
        "slot-router.socket",
        "systemctl restart slot-router.socket",
        |facts| {
            facts.listeners.insert(
                "slot-router.socket".to_owned(),
                vec![Listener {
                    port: 80,
                    ..Listener::default()
                }],
            );
        },
    ),
    (
        "router-silent",
        Level::Problem,
        "slot-router@1.service",
        "router upgrade",
        |facts| {
            facts.routers = Ok([("1".to_owned(), Err("no answer".to_owned()))].into());
        },
    ),
    (
        "router-silent",
        Level::Problem,
        "slot-router@1.service",
        "router upgrade",
        |facts| facts.routers = Ok(BTreeMap::new()),
    ),
    ("router", Level::Unseen, "slot-router", "", |facts| {
        facts.routers = Err("it takes root".to_owned())
    }),
    (
        "router-without-table",
        Level::Problem,
        "slot-router@1.service",
        "systemctl restart slotd.service",
        |facts| {
            router(facts, |stats| stats.revision = None);
        },
    ),
    (
        "router-behind",
        Level::Problem,
        "slot-router@1.service",
        "systemctl restart slotd.service",
        |facts| {
            router(facts, |stats| stats.revision = Some(6));
        },
    ),
    (
        "router-none-accepts",
        Level::Problem,
        "slot-router",
        "router upgrade",
        |facts| router(facts, |stats| stats.accepting = false),
    ),
    (
        "router-many-accept",
        Level::Warning,
        "slot-router",
        "router upgrade",
        |facts| {
            *unit(facts, "slot-router@2.service") = up("running");
            let stats = Stats {
                revision: Some(7),
                accepting: true,
                ..Stats::default()
            };
            facts
                .routers
                .as_mut()
                .expect("routers")
                .insert("2".to_owned(), Ok(stats));
        },
    ),
    (
        "router-settings",
        Level::Warning,
        "slot-router@1.service",
        "router upgrade",
        |facts| {
            router(facts, |stats| stats.problem = Some("line 3".to_owned()));
        },
    ),
    (
        "machine-file",
        Level::Problem,
        "/etc/slot/machine.toml",
        "router upgrade",
        |facts| facts.machine = Err("line 3".to_owned()),
    ),
    (
        "table-differs",
        Level::Problem,
        "/run/slot/table.json",
        "systemctl restart slotd.service",
        |facts| {
            stand(facts).weights.insert("green".to_owned(), 90);
        },
    ),
    (
        "table-lacks",
        Level::Problem,
        "/run/slot/table.json",
        "systemctl restart slotd.service",
        |facts| facts.table = Ok(None),
    ),
    (
        "table-wrong",
        Level::Problem,
        "/run/slot/table.json",
        "systemctl restart slotd.service",
        |facts| facts.table = Err("EOF".to_owned()),
    ),
    (
        "table-orphan",
        Level::Warning,
        "/run/slot/table.json",
        "slotctl app remove web",
        |facts| {
            facts.apps.clear();
            facts.ports.clear();
            facts.units.retain(|name, _| !name.contains("web"));
        },
    ),
    (
        "polkit-daemon",
        Level::Problem,
        "polkit.service",
        "apt install polkitd",
        |facts| {
            unit(facts, "polkit.service").load = "not-found".to_owned();
        },
    ),
    (
        "polkit-daemon",
        Level::Problem,
        "polkit.service",
        "systemctl unmask",
        |facts| {
            unit(facts, "polkit.service").load = "masked".to_owned();
        },
    ),
    (
        "polkit-rule",
        Level::Problem,
        "/usr/share/polkit-1/rules.d/60-slot.rules",
        "reinstall",
        |facts| facts.rights.rule = Ok(false),
    ),
    (
        "bus-policy",
        Level::Warning,
        "/usr/share/dbus-1/system.d/slot.conf",
        "reinstall",
        |facts| facts.rights.bus = false,
    ),
    (
        "bus-policy",
        Level::Problem,
        "/usr/share/dbus-1/system.d/slot.conf",
        "reinstall",
        |facts| {
            facts.rights.bus = false;
            if let Ok(app) = &mut app(facts).app {
                app.after.frozen = true;
            }
        },
    ),
    (
        "user-missing",
        Level::Problem,
        "slot-upstream",
        "systemd-sysusers",
        |facts| {
            missing(facts, "slot-upstream", Account::Group);
        },
    ),
    (
        "user-missing",
        Level::Problem,
        "systemd-journal",
        "`systemd-sysusers`, then",
        |facts| missing(facts, "systemd-journal", Account::Group),
    ),
    // What was its own has a number for an owner, which is no fault beside that.
    (
        "user-missing",
        Level::Problem,
        "slot",
        "`systemd-sysusers slot.conf`",
        |facts| {
            missing(facts, "slot", Account::User);
            facts.places[2].found = Ok(Some(owned("root", "993", 0o1775)));
            facts.places[3].found = Ok(Some(owned("993", "993", 0o644)));
        },
    ),
    (
        "tcp-down",
        Level::Problem,
        "slotd-tcp.socket",
        "systemctl restart slotd.service",
        |facts| tcp(facts, "inactive"),
    ),
    (
        "tcp-failed",
        Level::Problem,
        "slotd-tcp.socket",
        "systemctl reset-failed slotd-tcp.socket",
        |facts| {
            tcp(facts, "failed");
            facts.tcp.holders.push("python3 (pid 9)".to_owned());
        },
    ),
    (
        "tcp-tokens-none",
        Level::Warning,
        "slotd-tcp.socket",
        "slotctl token new",
        |facts| {
            tcp(facts, "active");
            tokens(facts, Ok(0), false);
        },
    ),
    (
        "tcp-tokens-stale",
        Level::Warning,
        "/etc/slot/api-tokens",
        "systemctl restart slotd.service",
        |facts| {
            tcp(facts, "active");
            tokens(facts, Ok(1), true);
        },
    ),
    (
        "tcp-tokens-wrong",
        Level::Problem,
        "/etc/slot/api-tokens",
        "mend that line",
        |facts| {
            tcp(facts, "active");
            tokens(facts, Err("line 3: its digest".to_owned()), true);
        },
    ),
    (
        "tcp-tokens",
        Level::Unseen,
        "slotd-tcp.socket",
        "",
        |facts| {
            tcp(facts, "active");
            facts.tcp.tokens = Err("only root may look".to_owned());
        },
    ),
    (
        "tcp-open",
        Level::Warning,
        "slotd-tcp.socket",
        "TLS",
        |facts| {
            tcp(facts, "active");
            facts.tcp.addresses = vec!["0.0.0.0:7568".parse().expect("an address")];
        },
    ),
    (
        "user-taken",
        Level::Problem,
        "slot-app-web",
        "user = ",
        |facts| app(facts).taken_user = Some("slot-app-web".to_owned()),
    ),
    (
        "polkit-app-rule",
        Level::Problem,
        "/etc/polkit-1/rules.d/60-slot-app-web.rules",
        "slotctl app add",
        |facts| {
            app(facts).rule.found = Ok(None);
        },
    ),
    (
        "polkit-app-rule",
        Level::Problem,
        "/etc/polkit-1/rules.d/60-slot-app-web.rules",
        "slotctl app add",
        |facts| {
            app(facts).rule.found = Ok(Some("// another".to_owned()));
        },
    ),
    ("polkit-refuses", Level::Problem, "web@", "rule", |facts| {
        app(facts).may_start = Some(false)
    }),
    (
        "polkit-orphan",
        Level::Problem,
        "/etc/polkit-1/rules.d/60-slot-app-old.rules",
        "slotctl app remove old",
        |facts| {
            let path = PathBuf::from("/etc/polkit-1/rules.d/60-slot-app-old.rules");
            facts.rights.orphans = Some([("old".to_owned(), path)].into());
        },
    ),
    (
        "place-missing",
        Level::Problem,
        "/run/slot",
        "systemd-tmpfiles --create slot.conf",
        |facts| facts.places[0].found = Ok(None),
    ),
    (
        "place-rights",
        Level::Problem,
        "/run/slot",
        "systemd-tmpfiles --create slot.conf",
        |facts| {
            facts.places[0].found = Ok(Some(owned("slot", "root", 0o755)));
        },
    ),
    (
        "settings-open",
        Level::Problem,
        "/etc/slot/apps/web.toml",
        "chmod go-w",
        |facts| {
            facts.places[1].found = Ok(Some(owned("root", "root", 0o666)));
        },
    ),
    (
        "place-rights",
        Level::Problem,
        "/var/lib/slot/web",
        "chmod 1775",
        |facts| {
            facts.places[2].found = Ok(Some(owned("slot", "slot", 0o755)));
        },
    ),
    (
        "state-foreign",
        Level::Problem,
        "/var/lib/slot/web/state.json",
        "chown -h slot:slot",
        |facts| {
            facts.places[3].found = Ok(Some(owned("root", "root", 0o644)));
        },
    ),
    (
        "secret-open",
        Level::Warning,
        "/etc/slot/web.env",
        "chmod 0600",
        |facts| {
            facts.places[4].found = Ok(Some(owned("root", "root", 0o644)));
        },
    ),
    (
        "secret-missing",
        Level::Problem,
        "/etc/slot/web.env",
        "install -m 0600",
        |facts| facts.places[4].found = Ok(None),
    ),
    (
        "secret-exchangeable",
        Level::Warning,
        "/etc/slot",
        "chmod go-w",
        |facts| {
            facts.places[5].found = Ok(Some(owned("root", "root", 0o777)));
        },
    ),
    (
        "permission",
        Level::Unseen,
        "owners and modes",
        "",
        |facts| facts.places[4].found = Err("it takes root".to_owned()),
    ),
    (
        "app-file",
        Level::Problem,
        "/etc/slot/apps/web.toml",
        "man slot.toml",
        |facts| {
            app(facts).app = Err("web.toml:2: no such key".to_owned());
        },
    ),
    (
        "app-units",
        Level::Problem,
        "/etc/slot/apps/web.toml",
        "systemctl daemon-reload",
        |facts| {
            app(facts).texts[0].found = Some("# of before".to_owned());
        },
    ),
    (
        "watch-down",
        Level::Problem,
        "slot-watch@web.timer",
        "systemctl start slot-watch@web.timer",
        |facts| {
            unit(facts, "slot-watch@web.timer");
            app(facts).triggers.push("slot-watch@web.timer".to_owned());
        },
    ),
    (
        "watch-down",
        Level::Problem,
        "slot-watch@web.path",
        "systemctl reset-failed slot-watch@web.path",
        |facts| {
            unit(facts, "slot-watch@web.path").active = "failed".to_owned();
            app(facts).triggers.push("slot-watch@web.path".to_owned());
        },
    ),
    (
        "state-aside",
        Level::Warning,
        "/var/lib/slot/web/state.json.corrupt-1",
        "rm /var/lib/slot/web/state.json.corrupt-1",
        |facts| {
            app(facts)
                .aside
                .push("/var/lib/slot/web/state.json.corrupt-1".into());
        },
    ),
    (
        "state-corrupt",
        Level::Problem,
        "/var/lib/slot/web/state.json",
        "`slotctl app reload web`",
        |facts| {
            app(facts).state = State::Corrupt("EOF".to_owned());
        },
    ),
    (
        "state-missing",
        Level::Problem,
        "/var/lib/slot/web/state.json",
        "`slotctl app reload web`",
        |facts| {
            app(facts).state = State::Absent;
        },
    ),
    (
        "state",
        Level::Unseen,
        "/var/lib/slot/web/state.json",
        "",
        |facts| {
            app(facts).state = State::Unseen("it takes root".to_owned());
        },
    ),
    (
        "link-dangling",
        Level::Warning,
        "/var/lib/slot/web/prev",
        "deploy that release again",
        |facts| link(facts, "prev", |it| it.there = false),
    ),
    (
        "link-dangling",
        Level::Problem,
        "/var/lib/slot/web/green",
        "slotctl deploy",
        |facts| link(facts, "green", |it| it.there = false),
    ),
    (
        "link-differs",
        Level::Problem,
        "/var/lib/slot/web/live",
        "systemctl restart slotd.service",
        |facts| {
            link(facts, "live", |it| it.release = "aaaaaaaa".to_owned());
        },
    ),
    (
        "release-unrecorded",
        Level::Warning,
        "/var/lib/slot/web/releases/x",
        "systemctl restart slotd.service",
        |facts| {
            app(facts).unrecorded = Ok(["/var/lib/slot/web/releases/x".into()].into());
        },
    ),
    (
        "app-orphan",
        Level::Warning,
        "/var/lib/slot/old",
        "slotctl app remove old --purge",
        |facts| {
            facts.orphans = Ok([("/var/lib/slot/old".into(), 1 << 20)].into());
        },
    ),
    (
        "leftover",
        Level::Warning,
        "/var/lib/slot/web/state.json.new",
        "rm /var/lib/slot/web/state.json.new",
        |facts| {
            facts.leftovers.push(Leftover {
                path: "/var/lib/slot/web/state.json.new".into(),
                age: 3600,
                open: false,
            });
        },
    ),
    (
        "port-taken",
        Level::Problem,
        "port 20001",
        "ss -ltnp",
        |facts| {
            facts.ports.insert(
                20001,
                Held {
                    who: vec!["python3 (pid 9)".to_owned()],
                    units: Vec::new(),
                },
            );
        },
    ),
    (
        "port-shared",
        Level::Problem,
        "port 20001",
        "[ports]",
        |facts| {
            let shop = WEB.replace("web", "shop").replace("20002", "20004");
            let mut other = web();
            other.app = Ok(Box::new(
                App::parse(&shop, "shop.toml").expect("a right file"),
            ));
            (other.texts, other.state, other.rule.made) =
                (Vec::new(), State::Absent, String::new());
            other.links = Ok(BTreeMap::new());
            facts.apps.insert("shop".to_owned(), other);
        },
    ),
    (
        "disk-full",
        Level::Problem,
        "/var/lib/slot",
        "df -h",
        |facts| facts.disks[0].free = 1 << 20,
    ),
    (
        "disk-short",
        Level::Warning,
        "/var/lib/slot",
        "df -h",
        |facts| facts.disks[0].free = 32 << 20,
    ),
    (
        "disk-short",
        Level::Warning,
        "/var/lib/slot",
        "df -h",
        |facts| app(facts).largest = 900 << 20,
    ),
    (
        "disk-files",
        Level::Warning,
        "/var/lib/slot",
        "df -i",
        |facts| facts.disks[0].files = Some(10),
    ),
    (
        "clock-behind",
        Level::Problem,
        "clock",
        "timedatectl",
        |facts| facts.newest_ms = Some(2_000_000),
    ),
    (
        "clock-unset",
        Level::Warning,
        "clock",
        "timedatectl",
        |facts| facts.clock_is_set = Ok(Some(false)),
    ),
    ("clock-free", Level::Warning, "clock", "set-ntp", |facts| {
        facts.clock_is_set = Ok(None)
    }),
];

fn missing(facts: &mut Facts, name: &str, account: Account) {
    facts.rights.missing.insert(name.to_owned(), account);
}

/// slotd's API over TCP, for one token on loopback.
fn tcp(facts: &mut Facts, active: &str) {
    *unit(facts, "slotd-tcp.socket") = UnitFacts {
        active: active.to_owned(),
        ..up("running")
    };
    tokens(facts, Ok(1), false);
}

fn tokens(facts: &mut Facts, known: Result<usize, String>, changed: bool) {
    facts.tcp.tokens = Ok(Tokens { known, changed });
}

fn says(facts: &mut Facts, detail: &str) {
    let slot = SlotStatus {
        unit: "web@green.service".to_owned(),
        condition: "active".to_owned(),
        detail: Some(detail.to_owned()),
        ..SlotStatus::default()
    };
    let status = Status {
        app: "web".to_owned(),
        slots: vec![slot],
        ..Status::default()
    };
    facts.slotd = Slotd::Says(Box::new(Apps {
        apps: vec![status],
        broken: BTreeMap::new(),
    }));
}

fn public(facts: &mut Facts, listener: Listener) {
    *unit(facts, "slot-router.socket") = UnitFacts {
        installed: "enabled".to_owned(),
        ..idle()
    };
    facts
        .listeners
        .insert("slot-router.socket".to_owned(), vec![listener]);
}

fn router(facts: &mut Facts, change: impl FnOnce(&mut Stats)) {
    let told = facts.routers.as_mut().expect("routers").get_mut("1");
    change(told.expect("the instance").as_mut().expect("its answer"));
}

fn link(facts: &mut Facts, name: &str, change: impl FnOnce(&mut Link)) {
    let links = app(facts).links.as_mut().expect("links");
    change(links.get_mut(name).expect("the link"));
}

#[test]
fn one_thing_that_is_wrong_is_named_with_what_to_do() {
    for (check, level, object, remedy, wreck) in BROKEN {
        let mut facts = healthy();
        wreck(&mut facts);
        let faults = faults(&facts);
        let [fault] = faults.as_slice() else {
            panic!("{check} on {object}: {faults:#?}");
        };
        assert_eq!(
            (fault.check, fault.level, fault.object.as_str()),
            (*check, *level, *object),
            "{fault:#?}"
        );
        assert!(fault.remedy.contains(remedy), "{fault:#?}");
        assert!(
            !fault.why.is_empty() || fault.check == "app-warning",
            "{fault:#?}"
        );
        assert_eq!(
            fault.remedy.is_empty(),
            fault.level == Level::Unseen,
            "{fault:#?}"
        );
    }
}

#[test]
fn every_fault_that_there_can_be_is_in_that_table() {
    let tried: BTreeSet<&str> = BROKEN.iter().map(|(check, ..)| *check).collect();
    let mut code = String::new();
    for entry in std::fs::read_dir("src/doctor").expect("its sources") {
        code.push_str(&std::fs::read_to_string(entry.expect("a file").path()).expect("a source"));
    }
    for kind in ["problem", "warning"] {
        for rest in code.split(&format!("Finding::{kind}(")).skip(1) {
            let Some(check) = rest
                .trim_start()
                .strip_prefix('"')
                .and_then(|rest| rest.split('"').next())
            else {
                continue;
            };
            assert!(tried.contains(check), "{check} is tried by no test");
        }
    }
}

#[test]
fn what_is_mended_is_safe() {
    let mut mends = BTreeSet::new();
    for (.., wreck) in BROKEN {
        let mut facts = healthy();
        wreck(&mut facts);
        mends.extend(faults(&facts).into_iter().filter_map(|fault| fault.mend));
    }
    let expected = [
        Mend::Reload,
        Mend::ResetFailed("slot-router@2.service".to_owned()),
        Mend::ResetFailed("slot-setup@web.service".to_owned()),
        Mend::Directories,
        Mend::Remove("/var/lib/slot/web/state.json.new".into()),
    ];
    assert_eq!(mends, expected.into());
}

#[test]
fn nothing_is_reloaded_while_a_file_is_wrong_for_that_would_exchange_good_units_for_none() {
    let mut facts = healthy();
    unit(&mut facts, "slotd.service").stale = true;
    let mut other = web();
    other.app = Err("shop.toml:1: no command".to_owned());
    other.file = "/etc/slot/apps/shop.toml".into();
    facts.apps.insert("shop".to_owned(), other);
    let faults = faults(&facts);
    let stale = faults
        .iter()
        .find(|fault| fault.check == "unit-stale")
        .expect("it is stale");
    assert_eq!(stale.mend, None);
    assert!(
        stale
            .remedy
            .starts_with("first make /etc/slot/apps/shop.toml right"),
        "{stale:#?}"
    );
}

#[test]
fn what_is_on_its_way_is_no_fault() {
    let mut facts = healthy();
    link(&mut facts, "live", |it| it.release = "cccccccc".to_owned());
    stand(&mut facts).weights.insert("green".to_owned(), 90);
    app(&mut facts).unrecorded = Ok(["/var/lib/slot/web/releases/x".into()].into());
    stand(&mut facts).busy = true;
    facts.leftovers.push(Leftover {
        path: "/var/lib/slot/web/state.json.new".into(),
        age: 1,
        open: false,
    });
    facts.leftovers.push(Leftover {
        path: "/var/lib/slot/web/hold.json.new".into(),
        age: 3600,
        open: true,
    });
    let faults = faults(&facts);
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn a_unit_that_may_be_what_should_serve_is_not_reset() {
    let mut facts = healthy();
    unit(&mut facts, "web@green.service").active = "failed".to_owned();
    app(&mut facts).state = State::Unseen("it takes root to look: use sudo".to_owned());
    let faults = faults(&facts);
    let failed = faults.iter().find(|fault| fault.check == "unit-failed");
    let failed = failed.expect("it has failed");
    assert_eq!((failed.level, &failed.mend), (Level::Warning, &None));
    assert!(failed.remedy.contains("status"), "{failed:#?}");
}

fn warns(facts: &mut Facts, warnings: &[(&str, &str)]) {
    let mut status = Status {
        app: "web".to_owned(),
        ..Status::default()
    };
    for (topic, text) in warnings {
        status.warn(topic, (*text).to_owned());
    }
    facts.slotd = Slotd::Says(Box::new(Apps {
        apps: vec![status],
        broken: BTreeMap::new(),
    }));
}

#[test]
fn what_slotd_says_too_is_said_once_whatever_its_words() {
    let warnings = [
        (
            "router",
            "router instance 1 did not answer GET /stats: nothing within 5 s",
        ),
        (
            "table",
            "the table is not everywhere yet: router instance 1 did not answer PUT /table",
        ),
        ("state-corrupt", "state.json could not be read"),
        ("file", "the file of app web is wrong"),
        ("hook", "the hook after_switch exited with status 1"),
    ];
    let checks = |facts: &Facts| -> Vec<(&str, String)> {
        let faults = faults(facts).into_iter();
        faults.map(|fault| (fault.check, fault.text)).collect()
    };
    let mut facts = healthy();
    // Each is asked at its own moment, and not in the same words.
    facts.routers = Ok([("1".to_owned(), Err("the connection was closed".to_owned()))].into());
    warns(&mut facts, &warnings);
    let told = checks(&facts);
    let [(warning, text), (silent, _)] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert_eq!((*silent, *warning), ("router-silent", "app-warning"));
    assert!(text.contains("after_switch"), "{text}");
    // A table that is nowhere is not the fault of an instance that answers.
    let mut facts = healthy();
    warns(&mut facts, &warnings);
    let told = checks(&facts);
    assert!(
        told.len() == 2 && told[0].1.contains("PUT /table"),
        "{told:?}"
    );
    // Where no instance could be asked, slotd's word is all that there is.
    facts.routers = Err("it takes root".to_owned());
    let told = checks(&facts);
    assert!(
        told.iter().any(|(_, text)| text.contains("GET /stats")),
        "{told:?}"
    );
    // A slotd of before says no topics.
    let Slotd::Says(says) = &mut facts.slotd else {
        panic!("{:?}", facts.slotd);
    };
    says.apps[0].topics.clear();
    let told = checks(&facts).into_iter();
    assert_eq!(told.filter(|(check, _)| *check == "app-warning").count(), 5);
}

#[test]
fn a_state_that_is_lost_is_slotds_to_write_while_it_runs_and_to_find_out_when_it_starts() {
    for lost in [State::Corrupt("EOF".to_owned()), State::Absent] {
        let mut facts = healthy();
        app(&mut facts).state = lost;
        let running = faults(&facts);
        assert!(!running[0].remedy.contains("systemctl"), "{running:#?}");
        *unit(&mut facts, "slotd.service") = UnitFacts {
            installed: "enabled".to_owned(),
            ..idle()
        };
        facts.slotd = Slotd::Down;
        let stopped = faults(&facts);
        let state = stopped
            .iter()
            .find(|fault| fault.check.starts_with("state-"));
        let remedy = &state.expect("it is lost").remedy;
        assert!(
            remedy.starts_with("`systemctl start slotd.service`"),
            "{remedy}"
        );
    }
}

#[test]
fn slotd_over_tcp_is_no_fault_where_it_is_meant_to_be_as_it_is() {
    let said = |facts: &Facts| {
        let faults = faults(facts);
        assert!(faults.is_empty(), "{faults:#?}");
        let mut all = examine(facts).into_iter();
        all.find(|it| it.check == "tcp").map(|it| it.text)
    };
    let mut facts = healthy();
    assert_eq!(said(&facts), None);
    tcp(&mut facts, "active");
    let text = "listens on 127.0.0.1:7568, for who has a token";
    assert_eq!(said(&facts).as_deref(), Some(text));
    // In somebody's own network that is for him to know.
    facts.tcp.addresses = vec!["10.0.0.7:7568".parse().expect("an address")];
    assert!(said(&facts).is_some_and(|text| text.contains("unencrypted")));
    // It is not to be started by anybody.
    unit(&mut facts, "slotd-tcp.socket").load = "masked".to_owned();
    unit(&mut facts, "slotd-tcp.socket").active = "inactive".to_owned();
    assert_eq!(said(&facts), None);
    // It is started with slotd.
    let mut facts = healthy();
    tcp(&mut facts, "inactive");
    unit(&mut facts, "slotd.service").active = "inactive".to_owned();
    facts.slotd = Slotd::Down;
    let faults = faults(&facts);
    let checks: Vec<&str> = faults.iter().map(|fault| fault.check).collect();
    assert_eq!(checks, ["slotd-down"]);
}

#[test]
fn an_instance_that_drains_may_run_what_it_began_with() {
    let mut facts = healthy();
    *unit(&mut facts, "slot-router@2.service") = UnitFacts {
        replaced: Some(true),
        ..up("running")
    };
    let stats = Stats {
        revision: Some(7),
        accepting: false,
        ..Stats::default()
    };
    facts
        .routers
        .as_mut()
        .unwrap()
        .insert("2".to_owned(), Ok(stats));
    let faults = faults(&facts);
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn a_container_has_no_clock_of_its_own() {
    let mut facts = healthy();
    facts.container = true;
    facts.clock_is_set = Ok(None);
    assert!(faults(&facts).is_empty());
}
