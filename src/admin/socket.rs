//! The Unix socket that the commands use: bound before port 25 answers, replaced if stale.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;
use tracing::warn;

use super::caller::group_id;

/// Mode of the socket: the service's user and its group.
const SOCKET_MODE: u32 = 0o660;
/// Mode of the socket's directory, if it has to be made.
const DIRECTORY_MODE: u32 = 0o750;

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another service answers there.
    #[error("admin.socket {}: another clawback answers there; stop it first", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is no socket is there.
    #[error("admin.socket {}: there is a file of another kind; move it away or choose another path", path.display())]
    NoSocket {
        /// What is no socket.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("admin.socket {}: {source}; choose a path whose directory this user may write", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Binds the socket. To be called inside a runtime.
///
/// # Errors
///
/// [`SocketError`]: the start is refused.
pub fn bind(path: &Path, groups: &[String]) -> Result<UnixListener, SocketError> {
    let failed = |source| SocketError::Io {
        path: path.to_path_buf(),
        source,
    };
    if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(directory)
            .map_err(failed)?;
    }
    clear(path)?;
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
    give_to_group(path, groups);
    Ok(listener)
}

/// Removes a socket that nobody listens on any more.
fn clear(path: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(SocketError::Io {
                path: path.to_path_buf(),
                source,
            });
        }
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NoSocket {
                path: path.to_path_buf(),
            });
        }
        Ok(_) => {}
    }
    if UnixStream::connect(path).is_ok() {
        return Err(SocketError::InUse {
            path: path.to_path_buf(),
        });
    }
    fs::remove_file(path).map_err(|source| SocketError::Io {
        path: path.to_path_buf(),
        source,
    })
}

/// Lets the first group that the configuration names in. Where that is refused (the packaged unit
/// may not change owners) the socket stays with the group of the service, which is told: its
/// members alone can then ask for anything, whatever groups the configuration names.
fn give_to_group(path: &Path, groups: &[String]) {
    let Some(group) = groups.iter().find_map(|name| group_id(name)) else {
        return;
    };
    let current = fs::metadata(path).map(|metadata| metadata.gid());
    if current.as_ref().is_ok_and(|current| *current == group) {
        return;
    }
    if let Err(error) = std::os::unix::fs::chown(path, None, Some(group)) {
        warn!(socket = %path.display(), group, current = current.ok(), %error, "the admin socket cannot \
              be given to the first group of admin.viewers; callers must be in its current group too");
    }
}
