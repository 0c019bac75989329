//! The routing table as requests use it: from listener, host and path to an app, from an app to a slot.
//!
//! A [`Builder`] takes the words of a table and checks them; the [`Table`] that comes out is never
//! changed, only replaced.
//!
//! **Invariant:** no I/O and no clock. Finding an app takes a hash lookup per label of the host at most,
//! then one per segment of the path, however many apps there are.
//!
//! **Invariant:** weights of an app add up to 100, or to 0.

pub mod preview;
pub mod sticky;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use self::preview::Preview;
use self::sticky::{PLACES, Sticky};
use super::h1::target;

/// Why a table makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Two apps have one name.
    #[error("app {0:?} is there twice")]
    AppTwice(String),
    /// A name is empty.
    #[error("an app or a slot of app {0:?} has no name")]
    NoName(String),
    /// Two slots of an app have one name.
    #[error("app {app:?} has slot {slot:?} twice")]
    SlotTwice {
        /// The app.
        app: String,
        /// The slot.
        slot: String,
    },
    /// Weights that add up to neither 0 nor 100.
    #[error("the weights of app {app:?} add up to {sum}, not to 100 (or 0)")]
    Weights {
        /// The app.
        app: String,
        /// What they add up to.
        sum: u32,
    },
    /// Clients cannot be kept to their slots in this way.
    #[error("app {app:?} cannot keep clients to its slots: {why}")]
    Sticky {
        /// The app.
        app: String,
        /// What is wrong.
        why: String,
    },
    /// Its runs cannot be named in this way.
    #[error("the previews of app {app:?} make no sense: {why}")]
    Preview {
        /// The app.
        app: String,
        /// What is wrong.
        why: String,
    },
    /// An upstream that is neither an address nor a socket path.
    #[error("upstream {upstream:?} of slot {slot:?} of app {app:?} is not valid: {rule}")]
    Upstream {
        /// The app.
        app: String,
        /// The slot.
        slot: String,
        /// As it was given.
        upstream: String,
        /// What would be valid.
        rule: &'static str,
    },
    /// A host that no request could have.
    #[error("host {host:?} of app {app:?} is not a lower-case name, an address, *.name or *")]
    Host {
        /// The app.
        app: String,
        /// As it was given.
        host: String,
    },
    /// A path that no normalised path starts with.
    #[error("path {path:?} of app {app:?} is not absolute and normalised")]
    Path {
        /// The app.
        app: String,
        /// As it was given.
        path: String,
    },
    /// Two apps want the same requests.
    #[error("apps {app:?} and {other:?} both have host {host:?} and path {path:?}")]
    RouteTwice {
        /// The second of them.
        app: String,
        /// The first of them.
        other: String,
        /// The host.
        host: String,
        /// The path.
        path: String,
    },
}

/// Where a slot listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Upstream {
    /// An address and a port.
    Tcp(SocketAddr),
    /// The path of a unix socket.
    Unix(PathBuf),
}

impl FromStr for Upstream {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            // sockaddr_un has room for 107 bytes and a NUL (unix(7)).
            return if path.starts_with('/') && path.len() <= 107 && !path.contains('\0') {
                Ok(Self::Unix(path.into()))
            } else {
                Err("a unix socket is an absolute path of at most 107 bytes")
            };
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 && !address.ip().is_unspecified() => {
                Ok(Self::Tcp(address))
            }
            _ => Err("expected ADDRESS:PORT, [ADDRESS]:PORT or unix:/PATH"),
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A slot of an app.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Its share, per cent.
    pub weight: u8,
    /// Where it listens.
    pub upstream: Upstream,
    /// Its run.
    pub boot_id: Option<String>,
    /// False while its requests must be held.
    pub ready: bool,
}

/// How large the requests of an app may be, and how long they may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of a request's body; more is 413.
    pub body_bytes: u64,
    /// A request's body without progress; then 408 or a reset.
    pub body_stall: Duration,
    /// A client that takes nothing of its answer; then a reset.
    pub write_stall: Duration,
    /// From a whole request to the head of its answer; then 504.
    pub response_head: Duration,
    /// An answer of known end without progress; then a reset.
    pub response_stall: Duration,
}

/// An app, without its routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Its name.
    pub name: String,
    /// How long its requests are held, in milliseconds.
    pub hold_ms: u64,
    /// What its requests may be and take.
    pub bounds: Bounds,
    /// Its slots, at least one if any has weight.
    pub slots: Vec<Slot>,
    /// How clients keep to them; absent while they need not, as one slot has all requests.
    pub sticky: Option<Sticky>,
    /// What requests can name; absent: nothing.
    pub preview: Option<Preview>,
}

impl App {
    /// The index of the slot that the request with number `ticket` goes to; `None` if all weights are 0.
    ///
    /// Any 100 tickets in a row are shared exactly by weight, and evenly mixed: 61 has no divisor in
    /// common with 100 and is near its golden section, so steps of it visit all places, far apart.
    #[must_use]
    pub fn pick(&self, ticket: u32) -> Option<usize> {
        let place = place(ticket);
        let mut sum = 0;
        self.slots.iter().position(|slot| {
            sum += slot.weight;
            place < sum
        })
    }
}

/// The place of a ticket.
#[must_use]
pub fn place(ticket: u32) -> u8 {
    (u64::from(ticket) * 61 % u64::from(PLACES)) as u8
}

/// The apps behind the routes of one host: by path prefix.
#[derive(Clone, Debug, Default)]
struct Paths {
    /// The prefix `/`, kept apart because most hosts have nothing else.
    root: Option<usize>,
    /// The other prefixes.
    prefixes: HashMap<Box<[u8]>, usize>,
    /// The length of the longest prefix: a request may bring thousands of segments, and only those
    /// that a prefix could reach are looked up.
    longest: usize,
}

impl Paths {
    fn find(&self, path: &[u8]) -> Option<usize> {
        if !self.prefixes.is_empty() {
            let slash = |part: &[u8]| part.iter().rposition(|b| *b == b'/').unwrap_or(0);
            let mut prefix = path;
            while let [rest @ .., b'/'] = prefix {
                prefix = rest;
            }
            while prefix.len() > self.longest {
                // A slash at `longest` itself still ends a prefix of that length.
                prefix = &prefix[..slash(&prefix[..=self.longest])];
            }
            while !prefix.is_empty() {
                if let Some(app) = self.prefixes.get(prefix) {
                    return Some(*app);
                }
                prefix = &prefix[..slash(prefix)];
            }
        }
        self.root
    }

    fn insert(&mut self, path: &str, app: usize) {
        match path {
            "/" => self.root = Some(app),
            _ => {
                self.longest = self.longest.max(path.len());
                self.prefixes.insert(path.as_bytes().into(), app);
            }
        }
    }
}

/// The routes that one listener has.
#[derive(Clone, Debug, Default)]
struct Hosts {
    exact: HashMap<Box<[u8]>, Paths>,
    /// By the name after `*.`.
    suffix: HashMap<Box<[u8]>, Paths>,
    /// The app by the name behind that of a run.
    previews: HashMap<Box<[u8]>, usize>,
    any: Paths,
}

impl Hosts {
    fn find(&self, host: &[u8], path: &[u8]) -> Option<usize> {
        if !self.exact.is_empty()
            && let Some(app) = self.exact.get(host).and_then(|p| p.find(path))
        {
            return Some(app);
        }
        if !self.suffix.is_empty() {
            let mut rest = host;
            while let Some(dot) = rest.iter().position(|b| *b == b'.') {
                rest = &rest[dot + 1..];
                if let Some(app) = self.suffix.get(rest).and_then(|p| p.find(path)) {
                    return Some(app);
                }
            }
        }
        self.any.find(path)
    }

    fn insert(&mut self, host: &str, path: &str, app: usize) {
        let paths = match host.strip_prefix("*.") {
            _ if host == "*" => &mut self.any,
            Some(parent) => self.suffix.entry(parent.as_bytes().into()).or_default(),
            None => self.exact.entry(host.as_bytes().into()).or_default(),
        };
        paths.insert(path, app);
    }
}

/// A table that was checked.
#[derive(Clone, Debug, Default)]
pub struct Table {
    apps: Vec<App>,
    /// Per listener of the router, in its order.
    listeners: Vec<Hosts>,
}

impl Table {
    /// The index of the app that a request on the router's `listener`th listener belongs to. `host` is in lower
    /// case and without port, `path` is normalised.
    #[must_use]
    pub fn find(&self, listener: usize, host: &[u8], path: &[u8]) -> Option<usize> {
        self.listeners.get(listener)?.find(host, path)
    }

    /// The index of the app of which a host names a run, and the name. A route of exactly this host goes ahead.
    #[must_use]
    pub fn preview<'h>(&self, listener: usize, host: &'h [u8]) -> Option<(usize, &'h str)> {
        let hosts = self.listeners.get(listener)?;
        if hosts.previews.is_empty() || hosts.exact.contains_key(host) {
            return None;
        }
        let dots = (1..host.len()).filter(|at| host[*at] == b'.');
        dots.map(|at| (&host[..at], &host[at + 1..]))
            .find_map(|(name, behind)| {
                let app = *hosts.previews.get(behind)?;
                Some((app, std::str::from_utf8(name).ok()?))
            })
    }

    /// All apps; indices are positions in it.
    #[must_use]
    pub fn apps(&self) -> &[App] {
        &self.apps
    }
}

/// Which requests are an app's.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    /// A listener's name, or every listener.
    pub listener: Option<&'a str>,
    /// A name, `*.name` or `*`.
    pub host: &'a str,
    /// A path prefix.
    pub path: &'a str,
}

/// A table that is being made.
#[derive(Debug)]
pub struct Builder<'a> {
    listeners: &'a [String],
    table: Table,
    names: HashMap<&'a str, usize>,
    /// Every route with its app: a listener's own ones are put in after the general ones, so that they win.
    routes: HashMap<(Option<&'a str>, &'a str, &'a str), usize>,
}

impl<'a> Builder<'a> {
    /// An empty table for a router with these listeners. Routes for others are checked and left out.
    #[must_use]
    pub fn new(listeners: &'a [String]) -> Self {
        Self {
            listeners,
            table: Table::default(),
            names: HashMap::new(),
            routes: HashMap::new(),
        }
    }

    /// Adds an app that has no slots and routes yet.
    ///
    /// # Errors
    /// Its name is empty or there already.
    pub fn app(&mut self, name: &'a str, hold_ms: u64, bounds: Bounds) -> Result<(), TableError> {
        if name.is_empty() {
            return Err(TableError::NoName(name.to_owned()));
        }
        if self.names.insert(name, self.table.apps.len()).is_some() {
            return Err(TableError::AppTwice(name.to_owned()));
        }
        self.table.apps.push(App {
            name: name.to_owned(),
            hold_ms,
            bounds,
            slots: Vec::new(),
            sticky: None,
            preview: None,
        });
        Ok(())
    }

    /// Adds a slot to the app that was added last.
    ///
    /// # Errors
    /// Its name is empty or there already, or its upstream is not valid.
    pub fn slot(
        &mut self,
        name: &str,
        weight: u8,
        upstream: &str,
        boot_id: Option<&str>,
        ready: bool,
    ) -> Result<(), TableError> {
        let Some(app) = self.table.apps.last_mut() else {
            return Ok(());
        };
        if name.is_empty() {
            return Err(TableError::NoName(app.name.clone()));
        }
        if app.slots.iter().any(|s| s.name == name) {
            return Err(TableError::SlotTwice {
                app: app.name.clone(),
                slot: name.to_owned(),
            });
        }
        let upstream = upstream.parse().map_err(|rule| TableError::Upstream {
            app: app.name.clone(),
            slot: name.to_owned(),
            upstream: upstream.to_owned(),
            rule,
        })?;
        let boot_id = boot_id.map(str::to_owned);
        app.slots.push(Slot {
            name: name.to_owned(),
            weight,
            upstream,
            boot_id,
            ready,
        });
        Ok(())
    }

    /// Adds a route to the app that was added last.
    ///
    /// # Errors
    /// Its host or path is not valid, or another route is the same.
    pub fn route(&mut self, route: Route<'a>) -> Result<(), TableError> {
        let Some(app) = self.table.apps.last() else {
            return Ok(());
        };
        if !is_host(route.host) {
            return Err(TableError::Host {
                app: app.name.clone(),
                host: route.host.to_owned(),
            });
        }
        let normal = super::h1::path::normalise(route.path.as_bytes());
        if !route.path.starts_with('/')
            || route.path.contains(['?', '#'])
            || !normal.is_ok_and(|n| n == route.path.as_bytes())
        {
            return Err(TableError::Path {
                app: app.name.clone(),
                path: route.path.to_owned(),
            });
        }
        let path = route
            .path
            .strip_suffix('/')
            .filter(|p| !p.is_empty())
            .unwrap_or(route.path);
        let index = self.table.apps.len() - 1;
        match self
            .routes
            .insert((route.listener, route.host, path), index)
        {
            Some(other) if other != index => Err(TableError::RouteTwice {
                app: app.name.clone(),
                other: self.table.apps[other].name.clone(),
                host: route.host.to_owned(),
                path: route.path.to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// The table.
    ///
    /// # Errors
    /// The weights of an app don't add up.
    pub fn build(mut self) -> Result<Table, TableError> {
        for app in &self.table.apps {
            let sum = app.slots.iter().map(|s| u32::from(s.weight)).sum();
            if sum != 0 && sum != 100 {
                return Err(TableError::Weights {
                    app: app.name.clone(),
                    sum,
                });
            }
        }
        for name in self.listeners {
            let mut hosts = Hosts::default();
            for own in [false, true] {
                for ((listener, host, path), app) in &self.routes {
                    if listener.map_or(!own, |l| own && l == name) {
                        hosts.insert(host, path, *app);
                        let preview = self.table.apps[*app].preview.as_ref();
                        if let Some(domain) = preview.and_then(|it| it.domain.clone()) {
                            hosts.previews.insert(domain.into_boxed_bytes(), *app);
                        }
                    }
                }
            }
            self.table.listeners.push(hosts);
        }
        Ok(self.table)
    }
}

/// True for `*`, `*.name`, and what a request's host is after it was put in lower case.
fn is_host(host: &str) -> bool {
    let bare = host.strip_prefix("*.").unwrap_or(host);
    host == "*"
        || !bare.is_empty()
            && !bare.contains('*')
            && !bare.starts_with('.')
            && !bare.ends_with('.')
            && !bare.bytes().any(|b| b.is_ascii_uppercase())
            && target::host(bare.as_bytes()).is_ok_and(|h| h.len() == bare.len())
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
