//! Notices that a child sends.

use std::ffi::OsString;

use super::super::errand::{Broken, Call};
use super::super::notices::LIMIT;
use super::super::units::Unbuilt;
use super::Embedded;
use super::errand::Errand;

impl Embedded {
    /// [`Units::notify`](super::Units::notify).
    pub(super) async fn notified<T: Send + 'static>(
        &self,
        exchange: impl FnOnce(&Call) -> Result<T, Broken> + Send + 'static,
    ) -> Result<T, Unbuilt> {
        let mut arguments: Vec<OsString> = Vec::new();
        for receiver in &self.app.notices {
            let key = receiver.key();
            arguments.extend(["--to".into(), format!("{key}={}", receiver.url).into()]);
            if let Some(path) = &receiver.secret_file {
                arguments.extend(["--secret".into(), format!("{key}={path}").into()]);
            }
        }
        let errand = Errand {
            name: "notify",
            arguments,
            limit: LIMIT,
        };
        self.run(errand, exchange).await
    }
}
