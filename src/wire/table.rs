//! The routing table: every app's routes and slots on this machine, at one revision, swapped whole.
//!
//! The same JSON is put to a router's control socket, kept in `/run/slot/table.json`, and given to
//! a standalone router by `--table`.

use serde::{Deserialize, Serialize};

/// All routes and weights of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Grows with every table; a router refuses one that is older than its own.
    pub revision: u64,
    /// The apps, in no particular order; names are unique.
    pub apps: Vec<App>,
}

/// One app's part of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// The app's name.
    pub name: String,
    /// The generation whose switch made this part.
    pub generation: u64,
    /// What requests are this app's.
    pub routes: Vec<Route>,
    /// Where they go; weights are per cent and add up to 100, or to 0 (answered 503 at once).
    pub slots: Vec<Slot>,
    /// How long a request is held, in milliseconds, while the slot that it is for is down; absent: as long as the machine says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_ms: Option<u64>,
    /// Its own bounds, where they are not the machine's.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// How its clients keep to a slot while several have a weight; absent: they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,
    /// What requests can name; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<Preview>,
}

/// Runs that a request reaches whatever their weight, if it names them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preview {
    /// `web.example.org`: the part of a host before it is a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// The SHA-256, in hexadecimal digits, of the token in `Slot-Preview: TOKEN NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// What there is; any other name is 404.
    pub runs: Vec<Named>,
}

/// A run of a slot that has names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// Its slot.
    pub slot: String,
    /// The run: while the slot has another one, this has no names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// The release that it runs, which the answers say in `Slot-Release`.
    pub release: String,
    /// What it is called, in any case of letters. No other run has the same name.
    pub names: Vec<String>,
}

/// How clients keep to a slot while shares grow: a client's key and the salt give it one of a hundred places, and places belong to slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sticky {
    /// What a client is known by: `cookie`, `address` or `header:NAME`.
    pub by: String,
    /// Another one gives everybody another place.
    pub salt: u64,
    /// Whose the places are, so many in a row, by the slots' names; each slot has as many as its weight says. If empty they follow the
    /// weights in the order of the slots.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<(u8, String)>,
}

/// An app's own bounds; absent ones are the machine's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes of a request's body; more are answered 413.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<u64>,
    /// Milliseconds that a request's body may stand still; then 408.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_stall_ms: Option<u64>,
    /// Milliseconds that a client may take nothing of its answer; then a reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_stall_ms: Option<u64>,
    /// Milliseconds from a whole request to the head of its answer; then 504.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_head_ms: Option<u64>,
    /// Milliseconds that an answer may stand still; then a reset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_stall_ms: Option<u64>,
}

impl Limits {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A listener, host and path prefix that belong to an app. The longest match wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The listener's name (`FileDescriptorName=` of its socket unit); absent: every listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// A host name in lower case, `*.example.org` for its subdomains, or `*` for any.
    pub host: String,
    /// A path prefix that ends at a segment boundary: `/api` has `/api` and `/api/x`, not `/apix`.
    pub path: String,
}

/// A slot as the router sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// `blue`, `green`, …
    pub name: String,
    /// Share of new requests, per cent.
    pub weight: u8,
    /// `127.0.0.1:9002`, `[::1]:9002` or `unix:/run/slot/web/blue/http.sock`.
    pub upstream: String,
    /// The unit's InvocationID, so that counts of one run are not those of the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// False while the slot boots or is down: its requests are held, never sent to it.
    #[serde(default = "ready", skip_serializing_if = "Clone::clone")]
    pub ready: bool,
}

fn ready() -> bool {
    true
}
