//! `token …`.

use clap::{Args, Subcommand, ValueEnum};

use crate::wire::token::{self, Scope};

/// `token …`.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token for slotd's API over TCP: print it once, and the line to store
    ///
    /// Nothing is written. The line goes into /etc/slot/api-tokens, which slotd reads when it starts; the token itself is nowhere afterwards but where you put it.
    New(TokenNew),
}

/// `token new`.
#[derive(Debug, Args)]
pub struct TokenNew {
    /// Whose it is; the journal says so of what is done with it
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub name: String,
    /// What it may: look, or change what serves too
    #[arg(long, value_name = "SCOPE", value_enum)]
    pub scope: ScopeName,
}

/// A scope, on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScopeName {
    /// Look.
    Read,
    /// Act.
    Act,
}

impl ScopeName {
    /// What it is.
    #[must_use]
    pub fn scope(self) -> Scope {
        match self {
            Self::Read => Scope::Read,
            Self::Act => Scope::Act,
        }
    }
}

fn name(text: &str) -> Result<String, token::TokenError> {
    token::check_name(text).map(|()| text.to_owned())
}
