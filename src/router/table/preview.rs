//! Runs that some requests name: by the host that they are for, or by a field with a token.
//!
//! **Invariant:** a name is that of one run, of those that may be asked whatever their weight; any other name is nobody's.

use sha2::{Digest, Sha256};

use super::super::h1::tokens::{is_token, trim};
use super::{Builder, Slot, TableError, is_host};

/// What of an app can be previewed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preview {
    /// Names before this host name a run.
    pub(super) domain: Option<Box<str>>,
    /// The SHA-256 of what a request has to know that names one otherwise.
    token: Option<[u8; 32]>,
    runs: Vec<Run>,
}

/// A run that has names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The index of its slot.
    pub slot: usize,
    /// What it runs, as an answer says it.
    pub release: Box<str>,
    names: Vec<Box<str>>,
}

impl Preview {
    /// The run of this name, whatever the case of its letters.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Run> {
        self.runs.iter().find(|run| {
            let mut names = run.names.iter();
            names.any(|own| own.eq_ignore_ascii_case(name))
        })
    }

    /// The name in what a request brings, `TOKEN NAME`, if that is the app's token.
    #[must_use]
    pub fn wished<'w>(&self, wish: &'w [u8]) -> Option<&'w str> {
        let mut words = wish.splitn(2, |b| *b == b' ');
        let (token, name) = (words.next()?, words.next().unwrap_or_default());
        self.is_token(token)
            .then(|| std::str::from_utf8(trim(name)).unwrap_or_default())
    }

    /// True if this is the app's token. How long that takes says nothing about it.
    fn is_token(&self, token: &[u8]) -> bool {
        self.token.is_some_and(|own| {
            let digest = Sha256::digest(token);
            let differ = own.iter().zip(digest).fold(0, |all, (a, b)| all | (a ^ b));
            std::hint::black_box(differ) == 0
        })
    }
}

/// A run that has names, in words.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// Its slot.
    pub slot: &'a str,
    /// The run.
    pub boot_id: Option<&'a str>,
    /// What it runs.
    pub release: &'a str,
    /// What it is called.
    pub names: &'a [String],
}

impl Builder<'_> {
    /// Lets runs of the app that was added last, all of whose slots are there, be named: before the host `domain`, or with a token whose
    /// SHA-256 this is. What its slots do not run any more is left out.
    ///
    /// # Errors
    /// One of them makes no sense, or a name is that of two runs.
    pub fn preview<'n>(
        &mut self,
        domain: Option<&str>,
        token: Option<&str>,
        named: impl Iterator<Item = Named<'n>>,
    ) -> Result<(), TableError> {
        let Some(app) = self.table.apps.last_mut() else {
            return Ok(());
        };
        let refused = |why: &str| TableError::Preview {
            app: app.name.clone(),
            why: why.to_owned(),
        };
        if domain.is_some_and(|domain| domain.starts_with('*') || !is_host(domain)) {
            return Err(refused("its domain is no host"));
        }
        let token = token.map(|hex| digest(hex).ok_or_else(|| refused("its token is no SHA-256")));
        let mut preview = Preview {
            domain: domain.map(Into::into),
            token: token.transpose()?,
            runs: Vec::new(),
        };
        for run in named {
            let is_it =
                |slot: &Slot| slot.name == run.slot && slot.boot_id.as_deref() == run.boot_id;
            let Some(slot) = app.slots.iter().position(is_it) else {
                continue;
            };
            // It stands in a field of answers.
            if !is_token(run.release.as_bytes()) {
                return Err(refused("it names a release that is no word"));
            }
            if run.names.iter().any(|name| preview.find(name).is_some()) {
                return Err(refused("a name is that of two runs"));
            }
            preview.runs.push(Run {
                slot,
                release: run.release.into(),
                names: run.names.iter().map(|name| name.as_str().into()).collect(),
            });
        }
        app.preview = Some(preview);
        Ok(())
    }
}

/// The 32 bytes that 64 hexadecimal digits are.
fn digest(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let digits = hex.as_bytes().chunks_exact(2);
    if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Bounds, Route, Table};
    use super::*;

    /// The SHA-256 of `secret`.
    const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    fn table(
        domain: &str,
        token: &str,
        runs: &[(&str, &str, &[&str])],
    ) -> Result<Table, TableError> {
        let listeners = ["http".to_owned(), "other".to_owned()];
        let mut builder = Builder::new(&listeners);
        let bounds = Bounds {
            body_bytes: u64::MAX,
            body_stall: Duration::ZERO,
            write_stall: Duration::ZERO,
            response_head: Duration::ZERO,
            response_stall: Duration::ZERO,
        };
        builder.app("web", 0, bounds)?;
        for (slot, weight) in [("blue", 100), ("green", 0)] {
            builder.slot(slot, weight, "127.0.0.1:9001", None, true)?;
        }
        let names: Vec<Vec<String>> = runs
            .iter()
            .map(|(_, _, names)| names.iter().map(|name| (*name).to_owned()).collect())
            .collect();
        let named = runs
            .iter()
            .zip(&names)
            .map(|((slot, release, _), names)| Named {
                slot,
                boot_id: None,
                release,
                names,
            });
        builder.preview(Some(domain), Some(token), named)?;
        for host in ["*", "blue.web.example"] {
            builder.route(Route {
                listener: Some("http"),
                host,
                path: "/",
            })?;
        }
        builder.build()
    }

    #[test]
    fn a_host_names_a_run_behind_the_apps_own_and_an_exact_route_goes_ahead() {
        let runs: &[(&str, &str, &[&str])] =
            &[("green", "1a2b3c4d", &["green", "1a2b3c4d", "V1.2"])];
        let table = table("web.example", SECRET, runs).expect("it makes sense");
        for (host, name) in [
            ("green.web.example", Some("green")),
            ("v1.2.web.example", Some("v1.2")),
            ("x.web.example", Some("x")),
            ("blue.web.example", None),
            ("web.example", None),
            ("xweb.example", None),
            (".web.example", None),
        ] {
            let named = table.preview(0, host.as_bytes()).map(|(_, name)| name);
            assert_eq!(named, name, "{host}");
            assert_eq!(
                table.preview(1, host.as_bytes()),
                None,
                "the app is not on that listener"
            );
        }
        let preview = table.apps()[0].preview.as_ref().expect("it was said");
        for (name, slot) in [
            ("green", Some(1)),
            ("GREEN", Some(1)),
            ("v1.2", Some(1)),
            ("blue", None),
            ("", None),
        ] {
            assert_eq!(preview.find(name).map(|run| run.slot), slot, "{name}");
        }
        for (wish, name) in [
            ("secret green", Some("green")),
            ("secret  green", Some("green")),
            ("secret", Some("")),
            ("secretgreen", None),
            ("Secret green", None),
            (" green", None),
            ("", None),
        ] {
            assert_eq!(preview.wished(wish.as_bytes()), name, "{wish:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let good: &[(&str, &str, &[&str])] = &[("green", "1a2b3c4d", &["green"])];
        assert!(table("web.example", SECRET, good).is_ok());
        for (domain, token, runs) in [
            ("*.example", SECRET, good),
            ("", SECRET, good),
            ("web.example", &SECRET[1..], good),
            ("web.example", "\u{e9}", good),
            ("web.example", SECRET, &[("green", "1a\r\nb", &["green"])]),
            ("web.example", SECRET, &[("green", "", &["green"])]),
            (
                "web.example",
                SECRET,
                &[("green", "1", &["v1"]), ("blue", "2", &["V1"])],
            ),
        ] {
            let refused = table(domain, token, runs);
            assert!(
                matches!(refused, Err(TableError::Preview { .. })),
                "{domain} {token} {runs:?}"
            );
        }
    }
}
