//! Directories that all releases of an app share: its own data, which a release reaches by a symlink.
//!
//! ```text
//! releases/<id>/uploads             -> <shared>/uploads
//! releases/<id>/.slot-seed/uploads/ what the release itself had there, if anything
//! ```
//! The data are the app's, so it is the app's user who makes the directory, when a release is started and it is not there: out of the
//! first seed.
//!
//! **Invariant:** a directory of the data is complete as soon as it has its name, and is never written over.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use super::ReleaseError;
use crate::config::SEED;

/// Where the shared directories are in an app's own data, for one that does not have them elsewhere.
#[must_use]
pub fn shared(data: &Path) -> PathBuf {
    data.join("shared")
}

/// Replaces directories of a release that is not one yet by symlinks to those in `shared`. What they hold is kept as their seed.
///
/// # Errors
/// The disk refuses, or a path leads through a symlink or a file of the release.
pub fn share(release: &Path, directories: &[String], shared: &Path) -> Result<(), ReleaseError> {
    for directory in directories {
        let seed = Path::new(SEED).join(directory);
        solid_above(release, Path::new(directory))?;
        solid_above(release, &seed)?;
        let (own, seed) = (release.join(directory), release.join(seed));
        match fs::symlink_metadata(&own) {
            Ok(about) if about.is_dir() => {
                make_above(&seed)?;
                fs::rename(&own, &seed).map_err(ReleaseError::disk("set aside", &own))?;
            }
            Ok(_) => fs::remove_file(&own).map_err(ReleaseError::disk("replace", &own))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_above(&own)?,
            Err(error) => return Err(ReleaseError::disk("look at", &own)(error)),
        }
        symlink(shared.join(directory), &own)
            .map_err(ReleaseError::disk("make the symlink", &own))?;
    }
    Ok(())
}

/// Makes the shared directories that are not there yet, out of what the release had, or empty. Two slots that start at the same time may
/// both do it: one comes first.
///
/// # Errors
/// The disk refuses.
pub fn seed(release: &Path, directories: &[String], shared: &Path) -> Result<(), ReleaseError> {
    for directory in directories {
        let own = shared.join(directory);
        if own.exists() {
            continue;
        }
        make_above(&own)?;
        let seed = release.join(SEED).join(directory);
        let mut coming = own.clone().into_os_string();
        coming.push(format!(".{}.new", std::process::id()));
        let coming = PathBuf::from(coming);
        // Of a process that had the same number and was killed.
        super::remove_tree(&coming).map_err(ReleaseError::disk("clear", &coming))?;
        make(&coming)?;
        if seed.is_dir() {
            copy(&seed, &coming)?;
        }
        // Before its name is: a machine that loses its power would have it with files of nothing, for ever.
        sync(&coming).map_err(ReleaseError::disk("write out", &coming))?;
        match fs::rename(&coming, &own) {
            // The other slot's is there now.
            Err(_) if own.exists() => {
                super::remove_tree(&coming).map_err(ReleaseError::disk("clear", &coming))?;
            }
            named => named.map_err(ReleaseError::disk("name", &own))?,
        }
    }
    Ok(())
}

/// Refuses to go through what is not a directory of the release itself.
fn solid_above(release: &Path, inside: &Path) -> Result<(), ReleaseError> {
    for above in inside.ancestors().skip(1) {
        if let Ok(about) = fs::symlink_metadata(release.join(above))
            && !about.is_dir()
        {
            return Err(ReleaseError::Refused {
                path: above.to_owned(),
                why: "is no directory, and shared_dirs has one below it",
            });
        }
    }
    Ok(())
}

/// Writes out all that is on the file system of a directory (syncfs(2)).
fn sync(directory: &Path) -> io::Result<()> {
    Ok(nix::unistd::syncfs(fs::File::open(directory)?)?)
}

fn make_above(path: &Path) -> Result<(), ReleaseError> {
    make(path.parent().unwrap_or(path))
}

fn make(path: &Path) -> Result<(), ReleaseError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .map_err(ReleaseError::disk("make the directory", path))
}

fn copy(from: &Path, to: &Path) -> Result<(), ReleaseError> {
    let listed = fs::read_dir(from).map_err(ReleaseError::disk("list", from))?;
    for entry in listed {
        let entry = entry.map_err(ReleaseError::disk("list", from))?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry
            .file_type()
            .map_err(ReleaseError::disk("look at", &from))?;
        if kind.is_dir() {
            make(&to)?;
            copy(&from, &to)?;
        } else if kind.is_symlink() {
            fs::read_link(&from)
                .and_then(|target| symlink(target, &to))
                .map_err(ReleaseError::disk("make the symlink", &to))?;
        } else {
            fs::copy(&from, &to).map_err(ReleaseError::disk("copy", &from))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(at: &Path, text: &str) -> PathBuf {
        let release = at.join("release");
        fs::create_dir_all(release.join("storage/files")).unwrap();
        fs::write(release.join("storage/files/one"), text).unwrap();
        release
    }

    #[test]
    fn the_first_release_that_has_a_directory_is_the_seed_of_all() {
        let place = tempfile::tempdir().unwrap();
        let (data, shared) = (place.path().join("data"), ["storage/files".to_owned()]);
        for text in ["first", "second"] {
            let release = release(&place.path().join(text), text);
            share(&release, &shared, &data).unwrap();
            seed(&release, &shared, &data).unwrap();
            let own = release.join("storage/files");
            assert!(own.is_symlink());
            assert_eq!(fs::read_to_string(own.join("one")).unwrap(), "first");
            fs::write(own.join("two"), "kept").unwrap();
        }
        let files = fs::read_dir(data.join("storage")).unwrap();
        assert_eq!(files.count(), 1, "nothing half-made is left");
        assert_eq!(
            fs::read_to_string(data.join("storage/files/two")).unwrap(),
            "kept"
        );
    }

    #[test]
    fn a_directory_that_no_release_has_is_made_empty() {
        let place = tempfile::tempdir().unwrap();
        let release = release(place.path(), "one");
        let (data, shared) = (place.path().join("data"), ["var/uploads".to_owned()]);
        share(&release, &shared, &data).unwrap();
        seed(&release, &shared, &data).unwrap();
        assert_eq!(
            fs::read_dir(release.join("var/uploads")).unwrap().count(),
            0
        );
    }

    #[test]
    fn nothing_is_set_aside_behind_a_symlink_that_a_build_has_left() {
        let place = tempfile::tempdir().unwrap();
        let release = release(place.path(), "one");
        let outside = place.path().join("outside");
        fs::create_dir(&outside).unwrap();
        symlink(&outside, release.join(SEED)).unwrap();
        let error = share(&release, &["storage/files".to_owned()], place.path()).unwrap_err();
        assert!(error.to_string().contains("shared_dirs"), "{error}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert!(release.join("storage/files/one").exists());
    }

    #[test]
    fn a_shared_directory_behind_a_symlink_of_the_release_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let release = release(place.path(), "one");
        symlink("/tmp", release.join("out")).unwrap();
        let error = share(&release, &["out/x".to_owned()], place.path()).unwrap_err();
        assert!(error.to_string().contains("shared_dirs"), "{error}");
    }
}
