//! Which instances of the router take connections from a listener, as each of them says.

use crate::traffic::{Routers, TrafficError};
use crate::wire::control::Stats;

/// The routers' control sockets are `<n>/control.sock` in it.
const ROUTERS: &str = "/run/slot/router";

/// Who takes connections from a listener. An instance that drains has closed it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Takers {
    /// The units that accept and have it.
    pub units: Vec<String>,
    /// The instance that accepts, if it has it; of several that accept, the last to have begun, which is the one that slotd lets go on.
    pub lasting: Option<u8>,
    /// The units that do not say.
    pub silent: Vec<String>,
}

/// Asks every instance.
///
/// # Errors
/// They cannot be found.
pub async fn takers(listener: &str) -> Result<Takers, TrafficError> {
    let told = Routers::in_directory(ROUTERS.into()).stats().await?;
    Ok(among(&told, listener))
}

fn among(told: &[(String, Result<Stats, TrafficError>)], listener: &str) -> Takers {
    let unit = |number: &str| format!("slot-router@{number}.service");
    let mut takers = Takers::default();
    let mut last = None;
    for (number, stats) in told {
        let stats = match stats {
            Ok(stats) if stats.accepting => stats,
            Ok(_) => continue,
            Err(_) => {
                takers.silent.push(unit(number));
                continue;
            }
        };
        let has = stats.listeners.iter().any(|it| it.name == listener);
        if has {
            takers.units.push(unit(number));
        }
        let began = (stats.since_ms, number.parse::<u8>().unwrap_or(0));
        if last.is_none_or(|(before, _)| before < began) {
            last = Some((began, has));
        }
    }
    takers.lasting = last.filter(|(_, has)| *has).map(|((_, number), _)| number);
    takers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control::Listener;

    fn instance(
        number: &str,
        since_ms: u64,
        accepting: bool,
        listeners: &[&str],
    ) -> (String, Result<Stats, TrafficError>) {
        let listener = |name: &&str| Listener {
            name: (*name).to_owned(),
            ..Listener::default()
        };
        let stats = Stats {
            accepting,
            since_ms,
            listeners: listeners.iter().map(listener).collect(),
            ..Stats::default()
        };
        (number.to_owned(), Ok(stats))
    }

    fn silent(number: &str) -> (String, Result<Stats, TrafficError>) {
        let error = TrafficError::NoAnswer {
            instance: number.to_owned(),
            request: "GET /stats",
            why: "nothing within 5 s".to_owned(),
        };
        (number.to_owned(), Err(error))
    }

    #[test]
    fn an_instance_takes_connections_from_what_it_has_until_it_drains() {
        let told = [
            instance("1", 10, false, &["http", "443"]),
            instance("2", 20, true, &["http", "443"]),
        ];
        let takers = among(&told, "443");
        assert_eq!(takers.units, ["slot-router@2.service"]);
        assert_eq!((takers.lasting, takers.silent.len()), (Some(2), 0));
        assert_eq!(among(&told, "8443"), Takers::default());
    }

    #[test]
    fn of_two_that_accept_the_last_to_have_begun_says_whether_it_lasts() {
        let new = instance("1", 30, true, &["http", "443"]);
        let old = instance("2", 20, true, &["http"]);
        let added = among(&[new, old], "443");
        assert_eq!((added.units.len(), added.lasting), (1, Some(1)));
        let new = instance("1", 30, true, &["http"]);
        let old = instance("2", 20, true, &["http", "443"]);
        let removed = among(&[new, old, silent("3")], "443");
        assert_eq!(removed.units, ["slot-router@2.service"]);
        assert_eq!(removed.lasting, None);
        assert_eq!(removed.silent, ["slot-router@3.service"]);
    }
}
