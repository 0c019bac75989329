//! `slotctl token new`: a bearer token for slotd's API over TCP.
//!
//! **Invariant:** the token is printed once and stored nowhere; what is to be stored is its digest.

use super::args::TokenNew;
use super::exit::Exit;
use super::random::random;
use super::term::{say, say_json};
use crate::wire::token::{RANDOM, Stored, digest, of_random};

/// Where the lines are.
const FILE: &str = "/etc/slot/api-tokens";

/// What is printed as JSON.
#[derive(serde::Serialize)]
struct Made {
    success: bool,
    token: String,
    line: String,
}

/// Makes one.
///
/// # Errors
/// If the kernel has no random bytes to give.
pub fn new(options: &TokenNew, json: bool) -> anyhow::Result<Exit> {
    let token = of_random(&random::<RANDOM>()?);
    let line = Stored {
        name: options.name.clone(),
        scope: options.scope.scope(),
        digest: digest(token.as_bytes()),
    }
    .to_string();
    if json {
        say_json(&Made {
            success: true,
            token,
            line,
        })?;
        return Ok(Exit::Ok);
    }
    say(&format!(
        "token  {token}\nline   {line}\n\nThe token is for {}, and is not shown again. The line belongs into {FILE} (root's, 0600); slotd takes it with\n\
         `systemctl restart slotd`.\n",
        options.name
    ))?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use crate::cli::args::{Cli, Command, Token};
    use clap::Parser;

    #[test]
    fn a_token_is_asked_for_by_a_name_and_a_scope() {
        let parse = |words: &str| Cli::try_parse_from(words.split(' '));
        let cli = parse("slotctl token new --name ci --scope act").unwrap();
        let Command::Token(Token::New(options)) = cli.command else {
            panic!("another command");
        };
        assert_eq!(options.name, "ci");
        for wrong in [
            "slotctl token new --name ci",
            "slotctl token new --scope act",
            "slotctl token new --name c:i --scope act",
            "slotctl token new --name ci --scope write",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
