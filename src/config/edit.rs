//! An app's file changed where it must be, and left as its author wrote it everywhere else.

use std::collections::BTreeMap;

use toml_edit::{DocumentMut, Item, Table, value};

use super::error::{ConfigError, Source};
use super::{App, Ports};
use crate::deploy::{AppName, SlotName};

/// The text of `/etc/slot/apps/<name>.toml`, made of a project's file: with its name, and with a port for
/// each slot that had none. Comments, order and spacing stay. What it returns has been parsed again.
///
/// # Errors
/// If the text is not an app's file, or would not be one with these ports.
pub fn with_ports(
    text: &str,
    file: &str,
    name: &AppName,
    ports: &BTreeMap<SlotName, Ports>,
) -> Result<String, ConfigError> {
    App::parse(text, file)?;
    let refused = |error: &dyn std::fmt::Display| {
        Source { file, text }.whole("", error.to_string(), "write the file anew")
    };
    let mut document: DocumentMut = text.parse().map_err(|error| refused(&error))?;
    if document.get("name").and_then(Item::as_str) != Some(name.as_str()) {
        let absent = !document.contains_key("name");
        document["name"] = value(name.as_str());
        if absent {
            // A new key comes after the others; a name is looked for at the top.
            document.sort_values_by(|a, _, b, _| (b == "name").cmp(&(a == "name")));
        }
    }
    if !ports.is_empty() {
        let table = document
            .entry("ports")
            .or_insert_with(|| Item::Table(Table::new()));
        let Some(table) = table.as_table_like_mut() else {
            return Err(refused(&"[ports] is not a table"));
        };
        for (slot, pair) in ports {
            if table.contains_key(slot.as_str()) {
                continue;
            }
            let item = if pair.port == pair.internal {
                value(i64::from(pair.port))
            } else {
                let mut inline = toml_edit::InlineTable::new();
                inline.insert("port", i64::from(pair.port).into());
                inline.insert("internal", i64::from(pair.internal).into());
                value(inline)
            };
            table.insert(slot.as_str(), item);
        }
    }
    let edited = document.to_string();
    App::parse(&edited, file)?;
    Ok(edited)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(pairs: &[(&str, u16, u16)]) -> BTreeMap<SlotName, Ports> {
        pairs
            .iter()
            .map(|(slot, port, internal)| {
                let pair = Ports {
                    port: *port,
                    internal: *internal,
                };
                (slot.parse().unwrap(), pair)
            })
            .collect()
    }

    #[test]
    fn the_authors_text_stays_and_name_and_ports_are_added() {
        let text = "# Our shop.\ncommand = \"./server\"  # built by make\n\n[env]\nA = \"1\"\n";
        let chosen = ports(&[("blue", 20001, 20001), ("green", 20002, 20003)]);
        let edited = with_ports(text, "slot.toml", &"web".parse().unwrap(), &chosen).unwrap();
        assert_eq!(
            edited,
            "name = \"web\"\n# Our shop.\ncommand = \"./server\"  # built by make\n\n[env]\nA = \"1\"\n\n\
             [ports]\nblue = 20001\ngreen = { port = 20002, internal = 20003 }\n"
        );
        let app = App::parse(&edited, "web.toml").unwrap();
        assert_eq!(app.ports, chosen);
        app.check_installed("/etc/slot/apps/web.toml").unwrap();
    }

    #[test]
    fn a_port_that_the_author_chose_is_kept() {
        let text = "name = \"old\"\ncommand = \"./server\"\nports = { blue = 3000 }\n";
        let chosen = ports(&[("blue", 20001, 20001), ("green", 20002, 20002)]);
        let edited = with_ports(text, "slot.toml", &"web".parse().unwrap(), &chosen).unwrap();
        assert_eq!(
            edited,
            "name = \"web\"\ncommand = \"./server\"\nports = { blue = 3000 , green = 20002 }\n"
        );
    }

    #[test]
    fn a_chosen_port_that_the_author_already_uses_is_refused() {
        let text = "command = \"./server\"\n[ports]\nblue = 20002\n";
        let chosen = ports(&[("green", 20002, 20002)]);
        let error = with_ports(text, "slot.toml", &"web".parse().unwrap(), &chosen).unwrap_err();
        assert!(error.to_string().contains("port 20002"), "{error}");
    }
}
