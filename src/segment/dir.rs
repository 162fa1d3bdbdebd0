//! Directories and small files whose names survive a power cut.
//!
//! A file's name is an entry of its directory, and that entry is durable only once the directory
//! was synced; the same holds for a directory in its parent.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Makes the entries of a directory durable.
///
/// # Errors
///
/// What the system said; the entries may then be lost by a power cut.
pub fn fsync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes a directory (mode 0700) and those above it that are missing, and makes all their entries
/// durable. Those that exist are left as they are, but their entries are synced too, up to the root of
/// their file system: a crash, or an error, may have come between making one and syncing it.
///
/// # Errors
///
/// What the system said; call it again before anything in the directory counts.
pub fn create_dir_durable(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).recursive(true).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        other => other?,
    }
    let device = fs::metadata(path)?.dev();
    let path = fs::canonicalize(path)?;
    for directory in path.ancestors() {
        // A mount point is no entry that could be lost.
        if fs::metadata(directory)?.dev() != device {
            break;
        }
        match fsync_dir(directory) {
            // What we may not read we have not made.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            other => other?,
        }
    }
    Ok(())
}

/// Puts `content` at `path` (mode 0600) so that after a crash either the old file or the new one is
/// there, whole: temporary file, `fsync`, rename, directory `fsync`.
///
/// # Errors
///
/// What the system said; the old file is then still in place, or the new one is and may be lost by
/// a power cut.
pub fn write_file_durable(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_added_extension("tmp");
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    fsync_dir(parent_of(path))
}

/// Removes a file and makes that durable; one that is not there is no error.
///
/// # Errors
///
/// What the system said.
pub fn remove_file_durable(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => fsync_dir(parent_of(path)),
    }
}

/// The directory that holds the entry of `path`.
pub(super) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn directories_are_private() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        create_dir_durable(&path).unwrap();
        create_dir_durable(&path).unwrap();
        for directory in [root.path().join("a"), path] {
            let mode = fs::metadata(&directory).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", directory.display());
        }
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("head");
        write_file_durable(&path, b"old").unwrap();
        write_file_durable(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        remove_file_durable(&path).unwrap();
        remove_file_durable(&path).unwrap();
        assert!(!path.exists());
    }
}
