//! Whether a file is what root put there. PID 1 reads an absolute `env_file` as root, for the app: whoever could put another file in
//! its place could have the app show him what only root may read.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// As many as the kernel follows (path_resolution(7)).
const MOST_SYMLINKS: usize = 40;
/// S_IWGRP and S_IWOTH.
const OTHERS_WRITE: u32 = 0o022;

/// Why somebody else than root could replace the file of an absolute path, if that is so: a component of it, or of a symlink in it,
/// is not root's alone. What is not there, or cannot be looked at, ends the walk: up to there all is root's, so only root can make it.
///
/// Users are told by number, since a generator runs before there is anybody to ask for names.
pub(super) fn replaceable(path: &Path) -> Option<String> {
    let mut ahead = reversed(path);
    let mut at = PathBuf::from("/");
    let mut symlinks = 0;
    while let Some(name) = ahead.pop() {
        match name.components().next() {
            Some(Component::RootDir) => at = PathBuf::from("/"),
            Some(Component::ParentDir) => {
                at.pop();
            }
            _ => {
                at.push(&name);
                let about = fs::symlink_metadata(&at).ok()?;
                if about.uid() != 0 {
                    return Some(format!("{} belongs to user {}", at.display(), about.uid()));
                }
                if about.is_symlink() {
                    symlinks += 1;
                    if symlinks > MOST_SYMLINKS {
                        return Some(format!(
                            "{} leads through too many symlinks",
                            path.display()
                        ));
                    }
                    ahead.extend(reversed(&fs::read_link(&at).ok()?));
                    at.pop();
                } else if about.mode() & OTHERS_WRITE != 0 {
                    return Some(format!("others than root may write to {}", at.display()));
                }
            }
        }
    }
    None
}

/// The components, the first one last.
fn reversed(path: &Path) -> Vec<PathBuf> {
    let components = path.components().rev();
    components
        .filter(|component| *component != Component::CurDir)
        .map(|component| PathBuf::from(component.as_os_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_roots_alone_or_not_there_is_trusted() {
        for path in [
            "/etc/passwd",
            "/etc/slot-no-such/web.env",
            "/bin/../etc/passwd",
        ] {
            assert_eq!(replaceable(Path::new(path)), None, "{path}");
        }
    }

    #[test]
    fn what_others_may_replace_is_not_trusted_through_symlinks_either() {
        let place = tempfile::tempdir_in("/tmp").unwrap();
        let file = place.path().join("web.env");
        fs::write(&file, "").unwrap();
        let why = replaceable(&file).unwrap();
        assert_eq!(why, "others than root may write to /tmp");
        // /proc/self/cwd is a symlink out of a directory of root's.
        let own = Path::new("/proc/self/root/tmp").join(file.file_name().unwrap());
        assert!(replaceable(&own).is_some());
    }
}
