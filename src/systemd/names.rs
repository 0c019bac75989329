//! Names of units, and where they are on the bus.

use std::fmt;
use std::fmt::Write as _;

use crate::deploy::{AppName, SlotName};

/// `web@green.service`, `web@green.socket`.
///
/// **Invariant:** made of names that need no escaping (systemd.unit(5)), so it is a valid unit name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitName(String);

impl UnitName {
    /// The unit that runs a slot of an app.
    #[must_use]
    pub fn service(app: &AppName, slot: &SlotName) -> Self {
        Self(format!("{app}@{slot}.service"))
    }

    /// The socket of a slot, where PID 1 holds it (`bind = "fd"`).
    #[must_use]
    pub fn socket(app: &AppName, slot: &SlotName) -> Self {
        Self(format!("{app}@{slot}.socket"))
    }

    /// The app whose slot it is; none of slot's own.
    #[must_use]
    pub fn app_of_slot(&self) -> Option<&str> {
        let (app, _) = self.0.split_once('@')?;
        (!app.starts_with("slot-")).then_some(app)
    }

    /// The unit that makes an app's releases ready.
    #[must_use]
    pub fn setup(app: &AppName) -> Self {
        Self(format!("slot-setup@{app}.service"))
    }

    /// The unit that fetches from an app's remote.
    #[must_use]
    pub fn fetch(app: &AppName) -> Self {
        Self(format!("slot-fetch@{app}.service"))
    }

    /// The unit that makes an app's staging.
    #[must_use]
    pub fn stage(app: &AppName) -> Self {
        Self(format!("slot-stage@{app}.service"))
    }

    /// The unit that runs an app's hooks.
    #[must_use]
    pub fn hook(app: &AppName) -> Self {
        Self(format!("slot-hook@{app}.service"))
    }

    /// The unit that sends an app's notices.
    #[must_use]
    pub fn notify(app: &AppName) -> Self {
        Self(format!("slot-notify@{app}.service"))
    }

    /// An instance of the router.
    #[must_use]
    pub fn router(instance: u8) -> Self {
        Self(format!("slot-router@{instance}.service"))
    }

    /// True if it is an instance of the router.
    pub(super) fn is_router(&self) -> bool {
        self.0.starts_with("slot-router@")
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Without its type, as people write it: `web@green`.
    #[must_use]
    pub fn stem(&self) -> &str {
        self.0.rsplit_once('.').map_or(&self.0, |(stem, _)| stem)
    }

    /// Its object on the bus: every byte but letters and digits as `_` and two hexadecimal digits (sd_bus_path_encode(3)).
    ///
    /// PID 1 loads a unit that is asked for by this path, so that it need not be loaded first.
    pub(super) fn path(&self) -> String {
        let mut path = String::from("/org/freedesktop/systemd1/unit/");
        for (at, byte) in self.0.bytes().enumerate() {
            if byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit()) {
                path.push(char::from(byte));
            } else {
                // Writing to a string cannot fail.
                let _ = write!(path, "_{byte:02x}");
            }
        }
        path
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_named_by_app_and_slot_and_found_under_its_escaped_name() {
        let app: AppName = "my-app2".parse().unwrap();
        let slot: SlotName = "green".parse().unwrap();
        let service = UnitName::service(&app, &slot);
        assert_eq!(service.as_str(), "my-app2@green.service");
        assert_eq!(service.stem(), "my-app2@green");
        assert_eq!(
            service.path(),
            "/org/freedesktop/systemd1/unit/my_2dapp2_40green_2eservice"
        );
        assert_eq!(
            UnitName::socket(&app, &slot).as_str(),
            "my-app2@green.socket"
        );
    }
}
