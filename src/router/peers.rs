//! Who connects: whom the router believes, and how many connections an address has.
//!
//! **Invariant:** a connection is counted from its arrival to its end, and what is counted for nobody is kept for nobody.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::Network;

/// What the router knows about those who connect; the same for all threads.
#[derive(Debug)]
pub struct Peers {
    trusted: Vec<Network>,
    /// Per listener: its connections begin with a header of the PROXY protocol.
    proxied: Vec<bool>,
    /// Connections of one address; 0 for any number.
    most: usize,
    open: Mutex<HashMap<Counted, usize>>,
}

/// What a connection is counted by: [`client_of`] its address, in as few bytes as that takes. An IPv4 address and the first half of an IPv6
/// address don't meet: no client has one that begins with 32 zeroes (0000::/8 is reserved in IANA's IPv6 address space).
type Counted = u64;

/// A counted connection.
#[derive(Debug)]
pub struct Place {
    peers: Arc<Peers>,
    address: Counted,
}

/// What is done with a connection.
#[derive(Debug)]
pub enum Arrival {
    /// It is served, and counted as long as this lives if it is counted at all.
    Served(Option<Place>),
    /// Its address has too many. It is told so, and counted while it is.
    TooMany(Place),
    /// Its address has twice as many: those who were told go on.
    FarTooMany,
}

impl Peers {
    /// Believes `trusted`, has a header begin the connections of the listeners that are `proxied`, and allows `most` to an address.
    pub fn new(trusted: Vec<Network>, proxied: Vec<bool>, most: usize) -> Arc<Self> {
        Arc::new(Self {
            trusted,
            proxied,
            most,
            open: Mutex::default(),
        })
    }

    /// True if `address` may say on whose behalf it asks.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }

    /// True if the connections of this listener begin with a PROXY header.
    pub fn is_proxied(&self, listener: usize) -> bool {
        self.proxied.get(listener).copied().unwrap_or_default()
    }

    /// Counts a connection of `address`, unless many clients are behind it: a trusted peer, or a proxy on this machine.
    pub fn arrive(self: &Arc<Self>, address: IpAddr) -> Arrival {
        let Some(address) = self.counted(address) else {
            return Arrival::Served(None);
        };
        match self.count(address, self.most.saturating_mul(2)) {
            Some((place, count)) if count <= self.most => Arrival::Served(Some(place)),
            Some((place, _)) => Arrival::TooMany(place),
            None => Arrival::FarTooMany,
        }
    }

    /// Counts one that the process before this one has left: it was let in there, however many there are.
    pub fn go_on(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let (place, _) = self.count(self.counted(address)?, usize::MAX)?;
        Some(place)
    }

    /// By what a connection of `address` is counted, if it is.
    fn counted(&self, address: IpAddr) -> Option<Counted> {
        let address = address.to_canonical();
        let stands_for_many = address.is_loopback() || self.trusts(address);
        (self.most > 0 && !stands_for_many).then(|| match client_of(address) {
            IpAddr::V4(v4) => v4.to_bits().into(),
            IpAddr::V6(v6) => (v6.to_bits() >> 64) as Counted,
        })
    }

    /// One more, and how many there are with it; none if there are `most`.
    fn count(self: &Arc<Self>, address: Counted, most: usize) -> Option<(Place, usize)> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        let place = Place {
            peers: Arc::clone(self),
            address,
        };
        Some((place, *count))
    }
}

/// IPv6 gives a client 64 bits to choose from (RFC 6177 section 2), so what is before them is the client.
pub fn client_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let open = self.peers.open.lock();
        let mut open = open.unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(peers: &Arc<Peers>, address: &str) -> Option<Place> {
        match peers.arrive(address.parse().unwrap()) {
            Arrival::Served(place) => place,
            other => panic!("{address}: {other:?}"),
        }
    }

    #[test]
    fn an_address_has_so_many_connections_and_no_more() {
        let peers = Peers::new(Vec::new(), Vec::new(), 2);
        let first = served(&peers, "203.0.113.9");
        let _second = served(&peers, "::ffff:203.0.113.9");
        let Arrival::TooMany(third) = peers.arrive([203, 0, 113, 9].into()) else {
            panic!("there are two");
        };
        let Arrival::TooMany(_fourth) = peers.arrive([203, 0, 113, 9].into()) else {
            panic!("there are three");
        };
        assert!(matches!(
            peers.arrive([203, 0, 113, 9].into()),
            Arrival::FarTooMany
        ));
        let _other = served(&peers, "203.0.113.10");
        drop((first, third));
        assert!(matches!(
            peers.arrive([203, 0, 113, 9].into()),
            Arrival::TooMany(_)
        ));
        drop(_fourth);
        assert!(served(&peers, "203.0.113.9").is_some());
    }

    #[test]
    fn what_goes_on_from_before_is_counted_and_never_refused() {
        let peers = Peers::new(Vec::new(), Vec::new(), 1);
        let address = IpAddr::from([203, 0, 113, 9]);
        let left: Vec<_> = (0..3).map(|_| peers.go_on(address)).collect();
        assert!(left.iter().all(Option::is_some));
        assert!(matches!(peers.arrive(address), Arrival::FarTooMany));
        drop(left);
        assert!(served(&peers, "203.0.113.9").is_some());
        assert!(peers.go_on([127, 0, 0, 1].into()).is_none());
    }

    #[test]
    fn a_client_with_a_block_of_addresses_is_one_client() {
        let peers = Peers::new(Vec::new(), Vec::new(), 1);
        let _one = served(&peers, "2001:db8:1:1::1");
        assert!(matches!(
            peers.arrive("2001:db8:1:1:ffff::2".parse().unwrap()),
            Arrival::TooMany(_)
        ));
        served(&peers, "2001:db8:1:2::1");
    }

    #[test]
    fn those_who_stand_for_many_are_not_counted_and_nothing_is_left_of_those_who_go() {
        let peers = Peers::new(vec!["10.0.0.0/8".parse().unwrap()], Vec::new(), 1);
        for address in ["10.1.2.3", "127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(served(&peers, address).is_none(), "{address}");
        }
        drop(served(&peers, "203.0.113.9"));
        assert!(peers.open.lock().unwrap().is_empty());
    }
}
