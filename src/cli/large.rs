//! What the files of a commit have in them that Git LFS keeps: sent before the commit is, each content once.
//!
//! **Invariant:** what slotd lacks is found on this side, or fetched to it, before any of it is sent.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};

use super::args::Deploy;
use super::chosen::refused;
use super::client::Client;
use super::deploy::{explain, path_of, skipped};
use super::follow::FRAME;
use super::pack::{Packing, whole};
use super::progress::Screen;
use super::term::harmless;
use crate::git::{Large, Part, Shelf};
use crate::telemetry::bytes;
use crate::wire::release::{Content, Contents, Lacking};

/// Once for what is lacking, once more to see that all of it is there; and one to spare, should something have gone meanwhile.
const ROUNDS: usize = 3;

/// Sends slotd what it lacks for the parts of a commit. Gives how much all those files take in the release, in bytes; nothing, if there
/// are none.
///
/// # Errors
/// Something is neither here nor can be fetched, there is no room for it, or slotd refuses it.
pub async fn send(
    client: &Client,
    parts: &[Part],
    options: &Deploy,
    screen: &mut Screen,
) -> anyhow::Result<Option<u64>> {
    let mut files = Vec::new();
    for part in parts {
        let found = part.large().map_err(|error| refused(&error))?;
        files.extend(found.into_iter().map(|file| (part, file)));
    }
    if files.is_empty() {
        return Ok(None);
    }
    let list = Contents {
        contents: files.iter().map(|(_, file)| content(file)).collect(),
    };
    let list = Bytes::from(serde_json::to_vec(&list)?);
    let skipped: Vec<_> = skipped(options).into_iter().collect();
    let path = path_of("/large", &skipped);
    for _ in 0..ROUNDS {
        let body = Full::new(list.clone()).map_err(|never| match never {});
        let Lacking { lacking } = client.post(&path, body.boxed()).await?;
        if lacking.is_empty() {
            break;
        }
        let mut lacking: BTreeSet<String> = lacking.into_iter().collect();
        let mut sending = Vec::new();
        for part in parts {
            let own = files.iter().filter(|(of, _)| std::ptr::eq(*of, part));
            // Each goes with the first file that has it.
            let own: Vec<&Large> = own
                .map(|(_, file)| file)
                .filter(|file| lacking.remove(file.oid.as_str()))
                .collect();
            if !own.is_empty() {
                sending.push((shelf(part, &own, screen)?, own));
            }
        }
        upload(client, &sending, screen).await?;
    }
    let sizes = files.iter().map(|(_, file)| file.size);
    Ok(Some(sizes.fold(0, u64::saturating_add)))
}

/// A file's content as it is told of.
pub(super) fn content(file: &Large) -> Content {
    Content {
        oid: file.oid.to_string(),
        size: file.size,
    }
}

/// Where the contents of these files are, all of them.
fn shelf(part: &Part, files: &[&Large], screen: &mut Screen) -> anyhow::Result<Shelf> {
    let shelf = part.shelf().map_err(|error| refused(&error))?;
    let absent = shelf.absent(files);
    if !absent.is_empty() {
        screen.enter("lfs fetch", &told(&absent));
        // All that the commit has, as it is to be in the user's repository.
        shelf
            .fetch(&absent, true)
            .map_err(|error| refused(&error))?;
    }
    Ok(shelf)
}

async fn upload(
    client: &Client,
    sending: &[(Shelf, Vec<&Large>)],
    screen: &mut Screen,
) -> anyhow::Result<()> {
    let all: Vec<&Large> = sending
        .iter()
        .flat_map(|(_, files)| files)
        .copied()
        .collect();
    let (sent, size) = (Arc::<AtomicU64>::default(), total(&all));
    screen.enter("upload", &told(&all));
    for (shelf, files) in sending {
        for file in files {
            let content = shelf.open(file).map_err(|error| refused(&error))?;
            let (body, packing) = whole(content, &sent)?;
            let path = format!("/large/{}?size={}", file.oid, file.size);
            let mut answer = pin!(client.post::<Lacking>(&path, body));
            let mut frame = tokio::time::interval(FRAME);
            let answer = loop {
                tokio::select! {
                    answer = &mut answer => break answer,
                    _ = frame.tick(), if screen.is_live() => {
                        screen.detail(&Packing::progress(&sent, Some(size)));
                        screen.tick();
                    }
                }
            };
            if let Err(error) = answer {
                screen.finish();
                return Err(explain(client, packing, error.into())
                    .await
                    .context(format!(
                        "cannot send {}",
                        harmless(&file.path.to_string_lossy())
                    )));
            }
        }
    }
    Ok(())
}

/// `art/model.bin and 2 more, 1.2 GiB, of Git LFS`.
fn told(files: &[&Large]) -> String {
    let first = files
        .first()
        .map_or_else(String::new, |it| it.path.display().to_string());
    let others = match files.len() {
        0 | 1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    format!("{first}{others}, {}, of Git LFS", bytes(total(files)))
}

fn total(files: &[&Large]) -> u64 {
    let sizes = files.iter().map(|file| file.size);
    sizes.fold(0, u64::saturating_add)
}
