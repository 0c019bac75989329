//! What is to be deployed, as a tar archive that is made while it is sent.
//!
//! The same bits give the same archive, so that they get the same release id: entries are in order of their names, without
//! times and owners, and of modes only "executable" is kept.
//!
//! **Invariant:** the archive is what [`Source`] looked over, or the request breaks off: never a part of it as if it were all.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::archive::Archive;
use super::client::Body;
use super::source::{Entry, Source, What, Whole};
use crate::git::Pack;
use crate::release::Exact;

/// How much of the archive is made before slotd takes some: 16 chunks.
const CHUNK: usize = 64 << 10;

/// What is deployed: a path that slotctl packs, or what is packed already.
pub enum Upload {
    /// A file or a directory.
    Path(Source),
    /// An archive.
    Archive(Archive),
}

impl Upload {
    /// Looks over what is to be deployed; `-` is an archive on standard input.
    ///
    /// # Errors
    /// If it is nothing that can be deployed.
    pub fn look_over(path: &Path) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Archive(Archive::standard_input()?));
        }
        // Whatever else is wrong with it is the source's to say.
        if fs::metadata(path).is_ok_and(|about| about.is_file())
            && let Some(archive) = Archive::look_at(path)?
        {
            return Ok(Self::Archive(archive));
        }
        Ok(Self::Path(Source::look_over(path)?))
    }

    /// That the app's command can be run from here, as far as that is known before it is unpacked. `file` names the app's file.
    ///
    /// # Errors
    /// As [`Source::check_command`].
    pub fn check_command(&self, command: &[String], file: &Path) -> anyhow::Result<()> {
        match self {
            Self::Path(source) => source.check_command(command, file),
            Self::Archive(_) => Ok(()),
        }
    }

    /// How much room its files take, where that is known: what a compressed archive unpacks to is not.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        match self {
            Self::Path(source) => Some(source.size),
            Self::Archive(archive) => archive.size.filter(|_| archive.is_plain),
        }
    }

    /// What the release is noted to come from: `origin` and `name` of the API.
    #[must_use]
    pub fn origin(&self) -> (&'static str, String) {
        match self {
            Self::Path(source) => ("path", source.path.display().to_string()),
            Self::Archive(archive) => ("archive", archive.name.clone()),
        }
    }

    /// The plain archive as the body of a request. It is made in a thread of its own while slotd takes it.
    ///
    /// # Errors
    /// If no thread can be had.
    pub fn body(self) -> io::Result<(Body, Packing)> {
        self.body_if(|| Ok(()))
    }

    /// The same; when all of it has been read, what `whole` says decides whether the request ends well or breaks off.
    ///
    /// # Errors
    /// If no thread can be had.
    pub fn body_if(
        self,
        whole: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<(Body, Packing)> {
        match self {
            Self::Path(source) => {
                let (sent, size) = (Arc::default(), Some(source.size));
                let counter = Arc::clone(&sent);
                send(sent, size, move |chunks| {
                    source.pack(&mut Counting { chunks, counter })?;
                    whole()
                })
            }
            Self::Archive(mut archive) => send(archive.read, archive.size, move |chunks| {
                io::copy(&mut archive.plain, chunks)
                    .and_then(|_| whole())
                    .map_err(|error| match error.kind() {
                        io::ErrorKind::BrokenPipe => error,
                        kind => io::Error::new(
                            kind,
                            format!(
                                "cannot read {}: {error}; is it whole?",
                                match archive.name.as_str() {
                                    "-" => "standard input",
                                    name => name,
                                }
                            ),
                        ),
                    })
            }),
        }
    }
}

/// A commit as the body of a request; nothing, where nothing of it is to be sent.
///
/// # Errors
/// If no thread can be had.
pub fn packed(pack: Option<Pack>) -> io::Result<(Body, Packing)> {
    let sent = Arc::default();
    let counter = Arc::clone(&sent);
    send(sent, None, move |chunks| {
        let Some(mut pack) = pack else { return Ok(()) };
        io::copy(&mut pack, &mut Counting { chunks, counter }).map(drop)
    })
}

/// A file as the body of a request. `sent` counts what slotd has taken of it, and of others before it.
///
/// # Errors
/// If no thread can be had.
pub fn whole(mut file: fs::File, sent: &Arc<AtomicU64>) -> io::Result<(Body, Packing)> {
    let counter = Arc::clone(sent);
    send(Arc::clone(sent), None, move |chunks| {
        io::copy(&mut file, &mut Counting { chunks, counter }).map(drop)
    })
}

/// Runs what writes an archive in a thread of its own.
fn send(
    sent: Arc<AtomicU64>,
    size: Option<u64>,
    write: impl FnOnce(&mut Chunks) -> io::Result<()> + Send + 'static,
) -> io::Result<(Body, Packing)> {
    let (chunks, mut taken) = mpsc::channel::<io::Result<Bytes>>(16);
    let mut writer = Chunks {
        chunks: chunks.clone(),
        unsent: BytesMut::with_capacity(CHUNK),
    };
    let thread = std::thread::Builder::new()
        .name("pack".to_owned())
        .spawn(move || {
            let packed = write(&mut writer).and_then(|()| writer.flush());
            if let Err(error) = &packed {
                // The request must not end as if the archive were whole.
                let torn = io::Error::new(error.kind(), error.to_string());
                let _ = chunks.blocking_send(Err(torn));
            }
            packed
        })?;
    let stream = futures_util::stream::poll_fn(move |context| {
        taken
            .poll_recv(context)
            .map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    });
    // BoxBody asks for Sync, which the receiver is.
    Ok((
        BodyExt::boxed(StreamBody::new(stream)),
        Packing { thread, sent, size },
    ))
}

impl Source {
    /// Writes the archive.
    fn pack(&self, writer: &mut impl Write) -> io::Result<()> {
        let mut archive = tar::Builder::new(writer);
        for entry in &self.entries {
            let path = match self.whole {
                Whole::File => self.path.clone(),
                Whole::Tree => self.path.join(&entry.inside),
            };
            pack_entry(&mut archive, entry, &path).map_err(|error| match error.kind() {
                io::ErrorKind::BrokenPipe => error,
                kind => io::Error::new(kind, format!("cannot read {}: {error}", path.display())),
            })?;
        }
        archive.finish()
    }
}

fn pack_entry(
    archive: &mut tar::Builder<impl Write>,
    entry: &Entry,
    path: &Path,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    match &entry.what {
        What::Directory => {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            archive.append_data(&mut header, &entry.inside, io::empty())
        }
        What::Link { to } => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            header.set_size(0);
            archive.append_link(&mut header, &entry.inside, to)
        }
        What::File { executable, size } => {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(if *executable { 0o755 } else { 0o644 });
            header.set_size(*size);
            let file = fs::File::open(path)?;
            if file.metadata()?.len() != *size {
                return Err(io::Error::other(
                    "it changed while it was deployed; deploy again",
                ));
            }
            let mut exact = Exact::of(file, *size);
            archive.append_data(&mut header, &entry.inside, &mut exact)
        }
    }
}

/// The archive, on its way.
#[derive(Debug)]
pub struct Packing {
    thread: JoinHandle<io::Result<()>>,
    sent: Arc<AtomicU64>,
    size: Option<u64>,
}

impl Packing {
    /// How much has been taken: `3.2 MiB of 40.0 MiB`, or `3.2 MiB` where nobody knows how much there is.
    #[must_use]
    pub fn progress(sent: &AtomicU64, size: Option<u64>) -> String {
        let sent = sent.load(Ordering::Relaxed);
        match size {
            Some(size) => format!(
                "{} of {}",
                crate::telemetry::bytes(sent.min(size)),
                crate::telemetry::bytes(size)
            ),
            None => crate::telemetry::bytes(sent),
        }
    }

    /// The counter and the total that [`Self::progress`] takes.
    #[must_use]
    pub fn counter(&self) -> (Arc<AtomicU64>, Option<u64>) {
        (Arc::clone(&self.sent), self.size)
    }

    /// What went wrong on this side, once the request has ended; `None` if the archive was whole or slotd stopped taking it.
    #[must_use]
    pub fn error(self) -> Option<io::Error> {
        let packed = self.thread.join().ok()?;
        packed
            .err()
            .filter(|error| error.kind() != io::ErrorKind::BrokenPipe)
    }
}

/// Hands what is written to the body, in chunks.
struct Chunks {
    chunks: mpsc::Sender<io::Result<Bytes>>,
    unsent: BytesMut,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unsent.extend_from_slice(bytes);
        if self.unsent.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        let chunk = self.unsent.split().freeze();
        self.chunks
            .blocking_send(Ok(chunk))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

/// Counts what passes through.
struct Counting<'a> {
    chunks: &'a mut Chunks,
    counter: Arc<AtomicU64>,
}

impl Write for Counting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.chunks.write(bytes)?;
        self.counter.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.chunks.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn archive(path: &Path) -> Vec<u8> {
        let mut bytes = Vec::new();
        Source::look_over(path).unwrap().pack(&mut bytes).unwrap();
        bytes
    }

    fn write(path: &Path, text: &str, mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_tree_is_packed_in_order_with_its_links_and_long_names() {
        let folder = tempfile::tempdir().unwrap();
        let long = "d".repeat(60) + "/" + &"e".repeat(90);
        write(&folder.path().join("b/server"), "#!/bin/sh\n", 0o700);
        write(&folder.path().join("a.txt"), "a", 0o600);
        write(&folder.path().join(&long), "long", 0o644);
        symlink("b/server", folder.path().join("link")).unwrap();
        let bytes = archive(folder.path());
        let mut found = Vec::new();
        for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let entry = entry.unwrap();
            found.push(format!(
                "{} {:o} {}",
                entry.path().unwrap().display(),
                entry.header().mode().unwrap(),
                entry.header().mtime().unwrap()
            ));
        }
        let folder = "d".repeat(60);
        assert_eq!(
            found,
            [
                "a.txt 644 0",
                "b 755 0",
                "b/server 755 0",
                &format!("{folder} 755 0"),
                &format!("{long} 644 0"),
                "link 777 0",
            ]
        );
    }

    #[tokio::test]
    async fn what_is_not_what_was_looked_at_breaks_off_when_all_of_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server");
        write(&path, "#!/bin/sh\n", 0o755);
        let (body, _) = Upload::look_over(&path)
            .unwrap()
            .body_if(|| Err(io::Error::other("it changed")))
            .unwrap();
        let error = body.collect().await.map(drop).unwrap_err();
        assert_eq!(error.to_string(), "it changed");
    }

    #[test]
    fn the_same_bits_make_the_same_archive() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for names in [(&one, ["x", "y"]), (&two, ["y", "x"])] {
            for name in names.1 {
                write(&names.0.path().join(name), name, 0o755);
            }
        }
        assert_eq!(archive(one.path()), archive(two.path()));
    }
}
