//! An archive that is to be deployed: a file or standard input, plain or compressed, on its way as plain tar.
//!
//! What it is compressed with is told by its first bytes, whatever its name. It is decompressed here, as the caller, so that slotd has
//! no decompressor and cannot be harmed through one.
//!
//! **Invariant:** what is no archive is refused before slotd is asked for anything.

use std::fs::File;
use std::io::{self, Cursor, IsTerminal, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::exit::Exit;

/// A block of tar(5), and so its first header.
const BLOCK: usize = 512;

/// An archive, opened and looked at.
pub struct Archive {
    /// As the user named it; `-` for standard input.
    pub(super) name: String,
    /// The plain archive, from its first byte.
    pub(super) plain: Box<dyn Read + Send>,
    /// How much was read of what it is in.
    pub(super) read: Arc<AtomicU64>,
    /// How much that is in all, if that is known.
    pub(super) size: Option<u64>,
    /// It is not compressed.
    pub(super) is_plain: bool,
}

/// What an archive is compressed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packed {
    Not,
    Gzip,
    Zstd,
    Xz,
}

impl Packed {
    /// By the magic numbers of RFC 1952 2.3.1, RFC 8878 3.1.1 and the .xz file format 2.1.1.1.
    fn of(first: &[u8]) -> Self {
        if first.starts_with(&[0x1f, 0x8b]) {
            Self::Gzip
        } else if first.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Self::Zstd
        } else if first.starts_with(b"\xfd7zXZ\0") {
            Self::Xz
        } else {
            Self::Not
        }
    }

    fn plain(self, packed: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Self::Not => Box::new(packed),
            // Of more than one member or stream each is a part of the whole, as their own tools have it.
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(packed)),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::new(packed)?),
            Self::Xz => Box::new(liblzma::read::XzDecoder::new_multi_decoder(packed)),
        })
    }

    fn word(self) -> &'static str {
        match self {
            Self::Not => "not compressed",
            Self::Gzip => "compressed with gzip",
            Self::Zstd => "compressed with zstd",
            Self::Xz => "compressed with xz",
        }
    }
}

/// What other packers make, by their own magic numbers: no program begins so.
fn foreign(first: &[u8]) -> Option<&'static str> {
    let kinds: [(&[u8], _); 4] = [
        // APPNOTE.TXT 4.3.7, and 4.3.16 for an empty one.
        (b"PK\x03\x04", "a zip archive"),
        (b"PK\x05\x06", "a zip archive"),
        (b"BZh", "compressed with bzip2"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    ];
    let kind = kinds.iter().find(|(magic, _)| first.starts_with(magic));
    kind.map(|(_, word)| *word)
}

/// What is a zip archive too, and is run as it is, by `java -jar` or `python3`.
const RUN_AS_THEY_ARE: [&str; 3] = ["jar", "war", "pyz"];

impl Archive {
    /// A file, if it is an archive by its first bytes or means to be one by its name.
    ///
    /// # Errors
    /// It cannot be read, or is not what its name says.
    pub fn look_at(path: &Path) -> anyhow::Result<Option<Self>> {
        let name = path.display().to_string();
        let unread = |error| {
            refused(format!(
                "cannot read {name}: {error}; check its permissions"
            ))
        };
        let file = File::open(path).map_err(unread)?;
        let size = file.metadata().map_err(unread)?.len();
        let archive = Self::of(&name, file, Some(size))?;
        let file_name = path.file_name().unwrap_or_default().to_string_lossy();
        if archive.is_none() && [".tar", ".tgz"].iter().any(|word| file_name.contains(word)) {
            return Err(refused(format!(
                "{name} is no tar archive, nor one that is compressed with gzip, zstd or xz; pack it anew with `tar czf`, or rename it if \
                 it is a program"
            )));
        }
        Ok(archive)
    }

    /// Standard input.
    ///
    /// # Errors
    /// It is a terminal, or no archive.
    pub fn standard_input() -> anyhow::Result<Self> {
        let input = io::stdin();
        if input.is_terminal() {
            return Err(refused(
                "`-` is standard input, and that is a terminal; pipe an archive into it: `tar c . | slotctl deploy -`"
                    .to_owned(),
            ));
        }
        Self::of("-", input, None)?.ok_or_else(|| {
            refused(
                "standard input is no tar archive, nor one that is compressed with gzip, zstd or xz; did what writes it fail? \
                 For instance: `tar c . | slotctl deploy -`"
                    .to_owned(),
            )
        })
    }

    /// `None` if it is neither compressed nor an archive.
    fn of(
        name: &str,
        input: impl Read + Send + 'static,
        size: Option<u64>,
    ) -> anyhow::Result<Option<Self>> {
        let shown = match name {
            "-" => "standard input",
            name => name,
        };
        let unread = |error| refused(format!("cannot read {shown}: {error}"));
        let read = Arc::new(AtomicU64::new(0));
        let counted = Counted {
            input,
            read: Arc::clone(&read),
        };
        let (first, input) = peek(counted).map_err(unread)?;
        let ending = Path::new(name).extension().unwrap_or_default();
        let is_run = RUN_AS_THEY_ARE.iter().any(|kind| ending == *kind);
        if let Some(kind) = foreign(&first).filter(|_| !is_run) {
            return Err(refused(format!(
                "{shown} is {kind}, which slot does not unpack; unpack it and deploy the directory, or pack that as tar, plain or \
                 compressed with gzip, zstd or xz: `tar czf app.tar.gz -C DIRECTORY .`"
            )));
        }
        let packed = Packed::of(&first);
        let (first, plain) = match packed {
            Packed::Not => (first, Box::new(input) as Box<dyn Read + Send>),
            Packed::Gzip | Packed::Zstd | Packed::Xz => {
                let torn = |error| {
                    refused(format!(
                        "{shown} is {}, and cannot be decompressed: {error}; is it whole?",
                        packed.word()
                    ))
                };
                let (first, plain) = peek(packed.plain(input).map_err(torn)?).map_err(torn)?;
                (first, Box::new(plain) as Box<dyn Read + Send>)
            }
        };
        if !is_header(&first) {
            return match packed {
                Packed::Not => Ok(None),
                Packed::Gzip | Packed::Zstd | Packed::Xz => Err(refused(format!(
                    "{shown} is {}, and what is in it is no tar archive; pack a directory with `tar czf`",
                    packed.word()
                ))),
            };
        }
        Ok(Some(Self {
            name: name.to_owned(),
            plain,
            read,
            size,
            is_plain: packed == Packed::Not,
        }))
    }
}

/// What was read of it already, then the rest.
type Whole<R> = io::Chain<Cursor<Vec<u8>>, R>;

/// The first block, or less if there is no more, and all of it.
fn peek<R: Read>(mut input: R) -> io::Result<(Vec<u8>, Whole<R>)> {
    let mut first = Vec::with_capacity(BLOCK);
    input.by_ref().take(BLOCK as u64).read_to_end(&mut first)?;
    Ok((first.clone(), Cursor::new(first).chain(input)))
}

/// Whether an archive begins so: the header's checksum is right, which all formats of tar(5) have.
fn is_header(first: &[u8]) -> bool {
    if first.len() != BLOCK {
        return false;
    }
    let (stated, sum) = (&first[148..156], |(at, byte): (usize, &u8)| match at {
        148..156 => u32::from(b' '),
        _ => u32::from(*byte),
    });
    let stated = String::from_utf8_lossy(stated);
    let stated = stated.trim_matches(|c| c == ' ' || c == '\0');
    u32::from_str_radix(stated, 8) == Ok(first.iter().enumerate().map(sum).sum())
}

struct Counted<R> {
    input: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

fn refused(text: String) -> anyhow::Error {
    Exit::Input.because(text)
}
