//! One process for one data directory.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The exclusive use of a directory, as long as the value lives. The system takes it back when the
/// process ends, however it ends.
///
/// The directory itself is locked, so that it works on a full disk and nobody undoes it by removing a
/// file. The file `lock` in it says who has it; it stays.
#[derive(Debug)]
pub struct DirectoryLock {
    /// Closing it gives the lock back.
    _file: File,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{}: in use by {holder}; stop that process or name another directory", path.display())]
    Held {
        /// The directory.
        path: PathBuf,
        /// `process 123 (clawback)`.
        holder: String,
    },
    /// The system refused.
    #[error("{}: {source}; the service needs to write there", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DirectoryLock {
    /// Takes the directory, which exists, and writes this process's number into its `lock` file.
    ///
    /// # Errors
    ///
    /// [`LockError::Held`] says who has it.
    pub fn acquire(directory: &Path) -> Result<Self, LockError> {
        let path = directory.join("lock");
        let io = |source| LockError::Io {
            path: directory.to_owned(),
            source,
        };
        let file = File::open(directory).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = holder(&path);
                return Err(LockError::Held {
                    path: directory.to_owned(),
                    holder,
                });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        // The number is for people; on a full disk it is missing, and the lock still holds.
        let _ = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

/// Who holds the lock, as its file tells.
fn holder(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    match text.trim().parse::<u32>() {
        Ok(pid) => match fs::read_to_string(format!("/proc/{pid}/comm")) {
            Ok(name) => format!("process {pid} ({})", name.trim().escape_debug()),
            Err(_) => format!("process {pid}"),
        },
        Err(_) => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_was_first() {
        let root = tempfile::tempdir().unwrap();
        let first = DirectoryLock::acquire(root.path()).unwrap();
        let error = DirectoryLock::acquire(root.path()).unwrap_err().to_string();
        let pid = format!("in use by process {}", std::process::id());
        assert!(error.contains(&pid), "{error}");
        fs::remove_file(root.path().join("lock")).unwrap();
        DirectoryLock::acquire(root.path()).unwrap_err();
        drop(first);
        DirectoryLock::acquire(root.path()).unwrap();
    }
}
