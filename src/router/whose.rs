//! By what a request's client is known, where clients are to keep to a slot.
//!
//! **Invariant:** who is not trusted has no say in what its address is.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::{IpAddr, SocketAddr};

use super::connection::Client;
use super::h1::again;
use super::h1::forward::{COOKIE, Cookie};
use super::h1::tokens::trim;
use super::peers::{Peers, client_of};
use super::table::sticky::{By, Key};

/// What of few requests is remembered until they are answered; the others stay small.
#[derive(Debug, Default)]
pub struct Aside(OnceCell<Box<Rare>>);

#[derive(Debug, Default)]
struct Rare {
    minted: Cell<Option<Key>>,
    wish: OnceCell<Box<[u8]>>,
    release: RefCell<Option<Box<str>>>,
}

impl Aside {
    fn rare(&self) -> &Rare {
        self.0.get_or_init(Box::default)
    }

    /// A key was made for the client: every try for the request goes by it, and the answer tells it.
    pub fn mint(&self, key: Key) {
        self.rare().minted.set(Some(key));
    }

    /// It names a run.
    pub fn wish(&self, wish: &[u8]) {
        // It does so once.
        _ = self.rare().wish.set(wish.into());
    }

    /// What it names a run by.
    pub fn wished(&self) -> Option<&[u8]> {
        self.0.get()?.wish.get().map(|wish| &**wish)
    }

    /// It goes to a run of this release, which it has named.
    pub fn previews(&self, release: &str) {
        *self.rare().release.borrow_mut() = Some(release.into());
    }

    /// Which that is.
    pub fn release(&self) -> Option<Box<str>> {
        self.0.get()?.release.borrow().clone()
    }

    /// What the client is told that has been given a key, if the request went upstream as `head`.
    pub fn cookie(&self, head: &[u8]) -> Option<Cookie> {
        let scheme = || again::values(head, "X-Forwarded-Proto").next();
        let key = self.0.get()?.minted.get()?;
        Some(Cookie {
            value: key.digits(),
            secure: scheme().is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"https")),
        })
    }
}

/// Whose a request is.
#[derive(Debug)]
pub enum Whose {
    /// Of the client with this key.
    Known(Key),
    /// Of one that is to get a key, made of this number.
    New(u64),
    /// Nothing says it.
    Unknown,
}

impl Whose {
    /// Whose the request is that goes upstream as `head`.
    pub fn of(client: &Client, head: &[u8], by: &By, aside: &Aside) -> Self {
        let minted = || aside.0.get().and_then(|rare| rare.minted.get());
        let key = match by {
            By::Cookie => again::cookie(head, COOKIE)
                .map(Key::of_cookie)
                .or_else(minted),
            By::Header(name) => again::values(head, name)
                .find(|value| !value.is_empty())
                .map(Key::of),
            By::Address if client.trusted => Some(of_list(
                again::values(head, "X-Forwarded-For").next(),
                client.address,
                &client.worker.shared.peers,
            )),
            By::Address => Some(of_address(client.address)),
        };
        match (key, by) {
            (Some(key), _) => Self::Known(key),
            (None, By::Cookie) => Self::New(client.worker.ids.number()),
            (None, By::Header(_) | By::Address) => Self::Unknown,
        }
    }
}

/// The client is the last one of the list that is not trusted itself: what is before that, anybody may have written.
fn of_list(list: Option<&[u8]>, peer: IpAddr, peers: &Peers) -> Key {
    let mut first = of_address(peer);
    let members = list
        .into_iter()
        .flat_map(|list| list.rsplit(|b| *b == b','));
    for member in members.map(trim).filter(|member| !member.is_empty()) {
        match address(member) {
            Some(address) if peers.trusts(address) => first = of_address(address),
            Some(address) => return of_address(address),
            // `unknown`, or a name that somebody has given to it (RFC 7239 section 6).
            None => return Key::of(member),
        }
    }
    first
}

/// An address, with or without a port.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let with_port = || text.parse().map(|it: SocketAddr| it.ip());
    bare.unwrap_or(text).parse().or_else(|_| with_port()).ok()
}

fn of_address(address: IpAddr) -> Key {
    match client_of(address.to_canonical()) {
        IpAddr::V4(v4) => Key::of(&v4.octets()),
        IpAddr::V6(v6) => Key::of(&v6.octets()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_trusted_peers_the_client_is_the_last_one_that_is_not_trusted() {
        let trusted = [
            "10.0.0.0/8".parse().unwrap(),
            "2001:db8::/64".parse().unwrap(),
        ];
        let peers = Peers::new(trusted.to_vec(), Vec::new(), 0);
        let peer: IpAddr = "10.0.0.1".parse().unwrap();
        let of = |text: &str| of_address(text.parse().unwrap());
        for (list, client) in [
            ("203.0.113.9, 10.0.0.1", "203.0.113.9"),
            ("8.8.8.8, 203.0.113.9,10.0.0.2 , 10.0.0.1", "203.0.113.9"),
            ("203.0.113.9:4711, , 10.0.0.1", "203.0.113.9"),
            ("[2001:db8:7::9]:80, 2001:db8::1, 10.0.0.1", "2001:db8:7::1"),
            ("10.0.0.3, 10.0.0.1", "10.0.0.3"),
            ("", "10.0.0.1"),
        ] {
            assert_eq!(
                of_list(Some(list.as_bytes()), peer, &peers),
                of(client),
                "{list}"
            );
        }
        assert_eq!(of_list(None, peer, &peers), of("10.0.0.1"));
        let named = of_list(Some(b"203.0.113.9, _hidden, 10.0.0.1"), peer, &peers);
        assert_eq!(named, Key::of(b"_hidden"));
    }
}
