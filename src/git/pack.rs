//! A commit on its way out of a repository.

use std::io::{self, Read, Write};
use std::process::Stdio;

use super::command::{Git, Run, words};
use super::{Commit, GitError};

/// The objects of a commit that another repository does not have, as git-pack-objects(1) writes them.
///
/// **Invariant:** it ends only when git has ended well; what is torn ends in an error.
#[derive(Debug)]
pub struct Pack {
    run: Run,
}

impl Pack {
    /// Begins to pack. The commits of `have` are whole there, without their history.
    pub(super) fn of(git: &Git, commit: &Commit, have: &[Commit]) -> Result<Self, GitError> {
        const OPERATION: &str = "pack a commit";
        // git-pack-objects(1) reads these as git-rev-list(1) does; `--shallow` is what git itself says to it for a fetch of one commit.
        let shallow = |commit: &Commit| format!("--shallow {commit}\n");
        let mut asked: String = std::iter::once(commit).chain(have).map(shallow).collect();
        asked.push_str(&format!("{commit}\n--not\n"));
        asked.extend(have.iter().map(|commit| format!("{commit}\n")));
        let mut run = git.start(
            OPERATION,
            &[
                "-c",
                // It goes to another process of this machine.
                "pack.compression=1",
                "pack-objects",
                "--revs",
                "--thin",
                "--shallow",
                "--stdout",
                "--delta-base-offset",
                "--quiet",
            ],
            Stdio::piped(),
        )?;
        // git reads all of it before it writes anything.
        let told = run
            .child
            .stdin
            .take()
            .map(|mut stdin| stdin.write_all(asked.as_bytes()));
        if let Some(Err(source)) = told {
            let said = run.end().map(|(_, said)| words(&said));
            return Err(said.map_or(
                GitError::Start {
                    operation: OPERATION,
                    source,
                },
                |said| GitError::Failed {
                    operation: OPERATION,
                    directory: git.directory().to_owned(),
                    said,
                },
            ));
        }
        Ok(Self { run })
    }
}

impl Read for Pack {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.run.child.stdout {
            Some(stdout) => stdout.read(buffer)?,
            None => 0,
        };
        if count > 0 || buffer.is_empty() {
            return Ok(count);
        }
        let (status, said) = self.run.end()?;
        if status.success() {
            Ok(0)
        } else {
            Err(io::Error::other(format!(
                "git could not pack the commit: {}",
                words(&said)
            )))
        }
    }
}
