//! One process for one data directory.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The exclusive use of a directory, as long as the value lives. The system takes it back when the
/// process ends, however it ends; the file `lock` stays.
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
        /// The lock file.
        path: PathBuf,
        /// `process 123 (clawback)`.
        holder: String,
    },
    /// The system refused.
    #[error("{}: {source}; the service needs to write there", path.display())]
    Io {
        /// The lock file.
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
            path: path.clone(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = holder(&mut file);
                return Err(LockError::Held { path, holder });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        // The number is for people; on a full disk it is missing, and the lock still holds.
        let _ = file
            .set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

/// Who holds the lock, as its file tells.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
    match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(pid)) => match fs::read_to_string(format!("/proc/{pid}/comm")) {
            Ok(name) => format!("process {pid} ({})", name.trim().escape_debug()),
            Err(_) => format!("process {pid}"),
        },
        _ => "another process".to_owned(),
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
        drop(first);
        DirectoryLock::acquire(root.path()).unwrap();
    }
}
