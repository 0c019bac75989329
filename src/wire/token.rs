//! Bearer tokens of the API over TCP (RFC 6750), and how they are stored: a line each, `name:scope:sha256`.
//!
//! ```text
//! # who:what it may:SHA-256 of the token, in hexadecimal digits
//! ci:act:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
//! ```
//!
//! **Invariant:** a stored line gives nobody access: a token has 256 random bits, so that its digest needs neither salt nor cost.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::hex;

/// What every token begins with, so that scanners for secrets know one.
pub const PREFIX: &str = "slot_";

/// How many random bytes a token has.
pub const RANDOM: usize = 32;

/// A file has no more: each is compared with what comes.
pub const MOST: usize = 64;

/// How long a name may be.
const LONGEST_NAME: usize = 32;

/// What a token may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Look.
    Read,
    /// Look, and change what serves.
    Act,
}

impl Scope {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Act => "act",
        }
    }
}

/// SHA-256 of a token.
pub type TokenDigest = [u8; 32];

/// A token as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Whose it is: what the journal says.
    pub name: String,
    /// What it may.
    pub scope: Scope,
    /// Its digest.
    pub digest: TokenDigest,
}

/// Why a line, or a file of them, cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not three parts.
    #[error("it is not name:scope:sha256; `slotctl token new` prints one")]
    Form,
    /// The name. What is there instead is not repeated: it may be a token.
    #[error("its name is not 1 to 32 of a-z, 0-9, - and _")]
    Name,
    /// The scope. What is there instead is not repeated: it may be part of a token.
    #[error("its scope is neither read nor act")]
    Scope,
    /// The digest.
    #[error(
        "its digest is not 64 hexadecimal digits; the line has the token's SHA-256, never the token"
    )]
    Digest,
    /// A name, twice.
    #[error("there is another {0:?}")]
    Twice(String),
    /// A file has too many.
    #[error("it is one more than {MOST}")]
    Many,
    /// A line of a file.
    #[error("line {line}: {error}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong.
        error: Box<TokenError>,
    },
}

/// What is compared, and stored.
#[must_use]
pub fn digest(token: &[u8]) -> TokenDigest {
    Sha256::digest(token).into()
}

/// A new token, of so many random bytes.
#[must_use]
pub fn of_random(bytes: &[u8; RANDOM]) -> String {
    format!("{PREFIX}{}", hex(bytes))
}

/// Whether somebody's token may have this name.
///
/// # Errors
/// It may not.
pub fn check_name(name: &str) -> Result<(), TokenError> {
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(known) {
        return Err(TokenError::Name);
    }
    Ok(())
}

/// All tokens of a file; empty lines, and those that begin with `#`, are none.
///
/// # Errors
/// With the first line that is wrong: a file is used whole or not at all.
pub fn stored(text: &str) -> Result<Vec<Stored>, TokenError> {
    let (mut all, mut names) = (Vec::new(), BTreeSet::new());
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |error| TokenError::Line {
            line: at + 1,
            error: Box::new(error),
        };
        let one: Stored = line.parse().map_err(wrong)?;
        if !names.insert(one.name.clone()) {
            return Err(wrong(TokenError::Twice(one.name)));
        }
        if all.len() == MOST {
            return Err(wrong(TokenError::Many));
        }
        all.push(one);
    }
    Ok(all)
}

impl FromStr for Stored {
    type Err = TokenError;

    fn from_str(line: &str) -> Result<Self, TokenError> {
        let mut parts = line.split(':');
        let (Some(name), Some(scope), Some(digest), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Form);
        };
        check_name(name)?;
        let scope = match scope {
            "read" => Scope::Read,
            "act" => Scope::Act,
            _ => return Err(TokenError::Scope),
        };
        let digest = unhex(digest).ok_or(TokenError::Digest)?;
        Ok(Self {
            name: name.to_owned(),
            scope,
            digest,
        })
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}",
            self.name,
            self.scope.name(),
            hex(&self.digest)
        )
    }
}

fn unhex(text: &str) -> Option<TokenDigest> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut bytes = TokenDigest::default();
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    #[test]
    fn a_stored_token_is_read_as_it_is_written() {
        let line = format!("ci:act:{DIGEST}");
        let one: Stored = line.parse().unwrap();
        assert_eq!((one.name.as_str(), one.scope), ("ci", Scope::Act));
        assert_eq!(one.digest, digest(b"test"));
        assert_eq!(one.to_string(), line);
        let file = format!("# whose\n\n{line}\n  grafana:read:{DIGEST}  \n");
        assert_eq!(stored(&file).unwrap().len(), 2);
        assert_eq!(stored("").unwrap(), []);
    }

    #[test]
    fn a_file_with_a_wrong_line_is_none_and_says_which_without_repeating_it() {
        let token = of_random(&[7; RANDOM]);
        assert!(token.starts_with(PREFIX) && token.len() == PREFIX.len() + 2 * RANDOM);
        for wrong in [
            token.clone(),
            format!("ci:act:{token}"),
            format!("ci:{token}:{DIGEST}"),
            format!("ci:act:{DIGEST}:more"),
            format!("ci:act:{}", &DIGEST[1..]),
            format!(":act:{DIGEST}"),
            format!("CI:act:{DIGEST}"),
            format!("{}:act:{DIGEST}", "a".repeat(33)),
            format!("ok:read:{DIGEST}"),
        ] {
            let said = stored(&format!("ok:act:{DIGEST}\n{wrong}\n")).unwrap_err();
            let said = said.to_string();
            assert!(said.starts_with("line 2: "), "{said}");
            assert!(!said.contains(&token[5..]), "{said}");
        }
        let many: String = (0..=MOST)
            .map(|n| format!("t{n}:read:{DIGEST}\n"))
            .collect();
        assert!(stored(&many).unwrap_err().to_string().contains("64"));
    }
}
