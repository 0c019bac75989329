//! The public sockets that there are, as systemd has them.

use std::fmt::Write;

use serde::Serialize;

use super::super::app::{public, systemctl};

/// A public socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Public {
    /// Its `FileDescriptorName=`, by which apps name it.
    pub name: String,
    /// Where it listens.
    pub addresses: Vec<String>,
    /// Its unit.
    pub unit: String,
    /// Whether it does listen.
    pub listening: bool,
}

impl Public {
    /// Whether it is of a port, on whichever address.
    pub fn has(&self, port: u16) -> bool {
        let mut ports = self.addresses.iter().flat_map(|it| public::ports(it));
        ports.any(|own| own == port)
    }
}

/// Every one.
#[derive(Serialize)]
pub struct Listeners {
    /// By unit.
    pub listeners: Vec<Public>,
}

/// Every one, in the order of their units.
///
/// # Errors
/// systemd does not say.
pub fn all() -> anyhow::Result<Vec<Public>> {
    let units = public::sockets()?;
    if units.is_empty() {
        return Ok(Vec::new());
    }
    let mut words = vec![
        "show",
        "--property=Id,Listen,FileDescriptorName,ActiveState",
    ];
    words.extend(units.iter().map(String::as_str));
    let mut all = read(&systemctl(&words)?);
    all.sort_by(|one, other| one.unit.cmp(&other.unit));
    Ok(all)
}

/// A paragraph of `NAME=value` lines for each socket; `Listen` is there for each address.
fn read(shown: &str) -> Vec<Public> {
    let one = |paragraph: &str| {
        let values = |name: &'static str| {
            let pairs = paragraph.lines().filter_map(|line| line.split_once('='));
            pairs
                .filter(move |(key, _)| *key == name)
                .map(|(_, value)| value)
        };
        let first = |name: &'static str| values(name).next().unwrap_or_default().to_owned();
        Public {
            name: first("FileDescriptorName"),
            addresses: values("Listen")
                .map(|listen| listen.trim_end_matches(" (Stream)").to_owned())
                .collect(),
            unit: first("Id"),
            listening: matches!(first("ActiveState").as_str(), "active"),
        }
    };
    shown
        .split("\n\n")
        .map(one)
        .filter(|it| !it.unit.is_empty())
        .collect()
}

/// A line for each, for people.
pub fn table(listeners: &[Public]) -> String {
    let width = |of: fn(&Public) -> usize, title: &str| {
        listeners.iter().map(of).max().unwrap_or(0).max(title.len())
    };
    let (name, address) = (
        width(|it| it.name.len(), "NAME"),
        width(|it| it.addresses.join(" ").len(), "ADDRESS"),
    );
    let mut text = format!("{:<name$}  {:<address$}  UNIT\n", "NAME", "ADDRESS");
    for it in listeners {
        let state = if it.listening {
            ""
        } else {
            " (does not listen)"
        };
        let addresses = it.addresses.join(" ");
        let _ = writeln!(
            text,
            "{:<name$}  {addresses:<address$}  {}{state}",
            it.name, it.unit
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_read_with_all_that_they_listen_on() {
        let shown = "Listen=[::]:80 (Stream)\nListen=127.0.0.1:81 (Stream)\nFileDescriptorName=http\nId=slot-router.socket\nActiveState=active\n\n\
                     Listen=[::]:443 (Stream)\nFileDescriptorName=443\nId=slot-router-443.socket\nActiveState=inactive\n";
        let all = read(shown);
        assert_eq!(
            table(&all),
            "NAME  ADDRESS               UNIT\n\
             http  [::]:80 127.0.0.1:81  slot-router.socket\n\
             443   [::]:443              slot-router-443.socket (does not listen)\n"
        );
        assert!(all[0].has(81) && all[1].has(443) && !all[1].has(80));
    }
}
