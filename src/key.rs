//! The store's key: one secret outside the data directory, from which every other key is derived.
//!
//! The file holds 64 hexadecimal characters and a line end, so that it can be printed and kept in a
//! safe. Whoever has it can read the quarantine and forge the audit log; without it both are lost,
//! the report log and the index are not.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use data_encoding::HEXLOWER_PERMISSIVE;
use zeroize::{Zeroize as _, ZeroizeOnDrop, Zeroizing};

use crate::segment::fsync_dir;

/// Octets of the key.
const KEY_OCTETS: usize = 32;

/// The key itself. Neither printed nor logged, wiped when dropped.
#[derive(Clone, ZeroizeOnDrop)]
pub struct StoreKey([u8; KEY_OCTETS]);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The system refused.
    #[error("{}: {source}; name the right file in store.key_file, or restore it from your backup", path.display())]
    Io {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A key is there already. It is never written over.
    #[error("{}: exists already; a new key would make audit log and quarantine unreadable", path.display())]
    Exists {
        /// The key file.
        path: PathBuf,
    },
    /// The file holds something else.
    #[error("{}: not a store key (64 hexadecimal characters); restore it from your backup", path.display())]
    Malformed {
        /// The key file.
        path: PathBuf,
    },
    /// The system gave no random numbers.
    #[error("no random numbers from the system")]
    Random,
}

impl StoreKey {
    /// Reads the key.
    ///
    /// # Errors
    ///
    /// [`KeyError::Io`] (`NotFound` when it was never made) or [`KeyError::Malformed`].
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let malformed = || KeyError::Malformed {
            path: path.to_owned(),
        };
        // No more is read than a key can be: the name may be that of a device.
        let mut text = Zeroizing::new(Vec::with_capacity(2 * KEY_OCTETS + 3));
        fs::File::open(path)
            .and_then(|file| file.take(2 * 32 + 3).read_to_end(&mut text))
            .map_err(io_error(path))?;
        let octets = HEXLOWER_PERMISSIVE
            .decode(text.trim_ascii_end())
            .map(Zeroizing::new)
            .map_err(|_| malformed())?;
        let octets: [u8; KEY_OCTETS] = octets.as_slice().try_into().map_err(|_| malformed())?;
        Ok(Self(octets))
    }

    /// Makes a new key in a new file of mode 0600, on stable storage when this returns.
    ///
    /// # Errors
    ///
    /// [`KeyError::Exists`] if there is a file of this name; I/O, and then there is no file.
    pub fn create(path: &Path) -> Result<Self, KeyError> {
        let mut key = Self([0; KEY_OCTETS]);
        SystemRandom::new()
            .fill(&mut key.0)
            .map_err(|_| KeyError::Random)?;
        let mut text = Zeroizing::new(HEXLOWER_PERMISSIVE.encode(&key.0));
        text.push('\n');
        match place(path, text.as_bytes()) {
            Ok(()) => Ok(key),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let path = path.to_owned();
                Err(KeyError::Exists { path })
            }
            Err(error) => Err(io_error(path)(error)),
        }
    }

    /// The key for one purpose: HMAC-SHA256 of its name under this key. Knowing one derived key tells
    /// nothing about the others.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let tag = hmac::sign(&key, purpose.as_bytes());
        let mut derived = [0; 32];
        derived.copy_from_slice(tag.as_ref());
        derived
    }

    /// A key of these octets, for tests and for keys that come from elsewhere.
    pub fn from_octets(mut octets: [u8; 32]) -> Self {
        let key = Self(octets);
        octets.zeroize();
        key
    }
}

impl std::fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreKey")
    }
}

/// Puts the text at `path`, durably, unless something is there. It has the name only once it is whole: a
/// start that is killed in between leaves no file that the next one would take for a damaged key.
fn place(path: &Path, text: &[u8]) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let temporary = path.with_added_extension(format!("{}.tmp", std::process::id()));
    let placed = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(text)?;
            file.sync_all()
        })
        // A link, as a rename would put the new key in the place of another.
        .and_then(|()| fs::hard_link(&temporary, path));
    // The first error is the one to tell; what stays of this name is in the way of nobody.
    let _ = fs::remove_file(&temporary);
    placed?;
    fsync_dir(directory).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> KeyError + '_ {
    move |source| KeyError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_again() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("store.key");
        let key = StoreKey::create(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let again = StoreKey::load(&path).unwrap();
        assert_eq!(again.derive("audit"), key.derive("audit"));
        assert_ne!(key.derive("audit"), key.derive("quarantine"));
        assert!(matches!(
            StoreKey::create(&path),
            Err(KeyError::Exists { .. })
        ));
        assert_eq!(StoreKey::load(&path).unwrap().derive("x"), key.derive("x"));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    /// What a start that was killed while it made the key may leave.
    #[test]
    fn half_a_key_is_in_nobodys_way() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("store.key");
        let temporary = path.with_added_extension(format!("{}.tmp", std::process::id()));
        fs::write(&temporary, "0123").unwrap();
        assert!(matches!(StoreKey::load(&path), Err(KeyError::Io { .. })));
        let key = StoreKey::create(&path).unwrap();
        assert_eq!(StoreKey::load(&path).unwrap().derive("x"), key.derive("x"));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("store.key");
        for (name, text, good) in [
            ("lower case", "ab".repeat(32), true),
            ("upper case, CRLF", format!("{}\r\n", "AB".repeat(32)), true),
            ("short", "ab".repeat(31), false),
            ("long", "ab".repeat(33), false),
            ("no hexadecimal", "xy".repeat(32), false),
            ("empty", String::new(), false),
        ] {
            fs::write(&path, text).unwrap();
            let loaded = StoreKey::load(&path);
            match loaded {
                Ok(_) => assert!(good, "{name}"),
                Err(error) => assert!(
                    !good && matches!(error, KeyError::Malformed { .. }),
                    "{name}: {error}"
                ),
            }
        }
    }

    #[test]
    fn a_key_is_not_printed() {
        let key = StoreKey::from_octets([0x5a; 32]);
        assert_eq!(format!("{key:?}"), "StoreKey");
    }
}
