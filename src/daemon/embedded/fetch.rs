//! A fetch as a child, as ssh is set up for the user unless the app has a deploy key.

use std::ffi::OsString;

use super::super::errand::{Broken, Call};
use super::super::units::Unbuilt;
use super::Embedded;
use super::errand::Errand;
use crate::config::Remote;

impl Embedded {
    /// [`Units::fetch`](super::Units::fetch).
    pub(super) async fn fetched<T: Send + 'static>(
        &self,
        exchange: impl FnOnce(&Call) -> Result<T, Broken> + Send + 'static,
    ) -> Result<T, Unbuilt> {
        let Some(remote) = &self.app.remote else {
            return Err(Unbuilt::without("has no remote"));
        };
        self.run(self.fetcher(remote), exchange).await
    }

    fn fetcher(&self, remote: &Remote) -> Errand {
        let mirror = self.root.join("mirror.git");
        let mut arguments: Vec<OsString> = vec!["--mirror".into(), mirror.into()];
        for (option, path) in [
            ("--deploy-key", &remote.deploy_key),
            ("--known-hosts", &remote.known_hosts),
        ] {
            arguments.extend(path.iter().flat_map(|path| [option.into(), path.into()]));
        }
        arguments.extend(["--".into(), remote.url.as_str().into()]);
        Errand {
            name: "fetch",
            arguments,
            limit: remote.timeout,
        }
    }
}
