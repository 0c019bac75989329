//! `slotctl notify`: the `ExecStart=` of `slot-notify@`. slotd tells it what to send; it signs that, sends it, and says what came of it.
//!
//! **Invariant:** it sends to nobody but whom its own command line names, whatever slotd asks for.
//! **Invariant:** a secret is read from a file, and goes nowhere but into a signature: no message, no argument, no variable has it.
//! **Invariant:** one receiver takes at most [`LIMIT`] of its time for a letter, whatever he does.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

use crate::telemetry::chain;
use crate::wire::hex;
use crate::wire::notice::{EVENT, ID, Letter, SIGNATURE, Said};

/// How long a receiver may take.
const LIMIT: Duration = Duration::from_secs(10);

/// What the unit's `ExecStart=` says.
#[derive(Clone, Debug)]
pub struct Request {
    /// `--socket`: where slotd waits.
    pub socket: PathBuf,
    /// `--to`: the URL of each receiver's key.
    pub receivers: BTreeMap<String, String>,
    /// `--secret`: where the secret of some of them is.
    pub secrets: BTreeMap<String, PathBuf>,
}

/// Sends what slotd has, until slotd ends it.
///
/// # Errors
/// slotd cannot be asked, or answered.
pub fn run(request: &Request) -> anyhow::Result<()> {
    let stream = UnixStream::connect(&request.socket).with_context(|| {
        format!(
            "cannot ask slotd at {} what to send; slotd starts this unit when there is something",
            request.socket.display()
        )
    })?;
    let mut to = stream.try_clone().context("cannot answer slotd")?;
    let agent = agent();
    for line in BufReader::new(stream).lines() {
        let line = line.context("cannot ask slotd what to send")?;
        let letter: Letter =
            serde_json::from_str(&line).context("slotd says what this does not know")?;
        let said = match request.receivers.get(&letter.to) {
            Some(url) => send(&agent, url, request.secrets.get(&letter.to), &letter),
            None => Said::Failed {
                why: "the unit does not know whom; `systemctl daemon-reload` makes it anew"
                    .to_owned(),
            },
        };
        let mut answer = serde_json::to_string(&said).context("cannot answer slotd")?;
        answer.push('\n');
        to.write_all(answer.as_bytes())
            .context("cannot answer slotd")?;
    }
    Ok(())
}

/// What a file says, but for the end of its line. Where PID 1 reads it for the unit, it is there, and empty, even if `secret_file` is not.
fn secret(path: &PathBuf) -> anyhow::Result<Vec<u8>> {
    const REMEDY: &str = "write one into the file that `secret_file` of [[notices]] names (`openssl rand -hex 32`, for root alone); the unit \
                          slot-notify@ of the app reads it when it is next started: `systemctl stop` it, and slotd does";
    let mut secret = fs::read(path)
        .with_context(|| format!("cannot read the secret {}; {REMEDY}", path.display()))?;
    while secret.last().is_some_and(u8::is_ascii_whitespace) {
        secret.pop();
    }
    if secret.is_empty() {
        bail!("there is no secret to sign with; {REMEDY}");
    }
    Ok(secret)
}

fn agent() -> Agent {
    // The machine's certificates, and no others.
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier);
    let config = Agent::config_builder()
        .timeout_global(Some(LIMIT))
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .max_idle_connections_per_host(1)
        .user_agent(concat!("slot/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls.build())
        .build();
    config.into()
}

fn send(agent: &Agent, url: &str, secret_file: Option<&PathBuf>, letter: &Letter) -> Said {
    let mut request = agent
        .post(url)
        .header("Content-Type", "application/json")
        .header(ID, &letter.id)
        .header(EVENT, &letter.event);
    match secret_file.map(secret).transpose() {
        Ok(Some(secret)) => {
            request = request.header(SIGNATURE, signature(&secret, letter.body.as_bytes()));
        }
        Ok(None) => {}
        // Nobody is told anything that he cannot know to be from here.
        Err(error) => {
            return Said::Failed {
                why: chain(error.as_ref()),
            };
        }
    }
    match request.send(letter.body.as_bytes()) {
        Ok(response) => judge(response.status().as_u16()),
        // A failure's own words may have the whole URL, which may have a token.
        Err(ureq::Error::BadUri(_)) => Said::Refused {
            why: "its URL is none".to_owned(),
        },
        Err(error) => Said::Failed { why: chain(&error) },
    }
}

/// What an answer's status says (RFC 9110, section 15).
fn judge(status: u16) -> Said {
    let why = format!("answered {status}");
    match status {
        200..=299 => Said::Sent,
        300..=399 => Said::Refused {
            why: format!("{why}, a redirect; write the URL where that leads"),
        },
        408 | 425 | 429 => Said::Failed { why },
        400..=499 => Said::Refused { why },
        _ => Said::Failed { why },
    }
}

/// `sha256=` and HMAC-SHA256 of a body, in hexadecimal digits (RFC 2104).
fn signature(secret: &[u8], body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(body);
    format!("sha256={}", hex(&mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_rfc_4231() {
        assert_eq!(
            signature(b"Jefe", b"what do ya want for nothing?"),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            signature(
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First"
            ),
            "sha256=60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn what_may_be_taken_later_is_not_given_up() {
        for status in [408, 425, 429, 500, 502, 503] {
            assert!(matches!(judge(status), Said::Failed { .. }), "{status}");
        }
        for status in [301, 400, 401, 404, 410, 422] {
            assert!(matches!(judge(status), Said::Refused { .. }), "{status}");
        }
        for status in [200, 202, 204] {
            assert_eq!(judge(status), Said::Sent, "{status}");
        }
    }
}
