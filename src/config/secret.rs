//! Secrets: each in a file of its own, never in the configuration, never printed.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// The octets of a secret file, without the line end that editors leave. Wiped when dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

/// A secret file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be read.
    #[error("{}: {source}; write the secret there, readable for the service alone", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing is in it.
    #[error("{} is empty; write the secret there", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl Secret {
    /// Wraps a secret that did not come from a file.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Reads a secret file.
    ///
    /// # Errors
    ///
    /// [`SecretError`]: the file is named.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let text = std::fs::read_to_string(path).map_err(|source| SecretError::Read {
            path: path.to_path_buf(),
            source,
        })?;
        let text = Zeroizing::new(text);
        let trimmed = text.trim_end_matches(['\r', '\n']);
        if trimmed.is_empty() {
            return Err(SecretError::Empty {
                path: path.to_path_buf(),
            });
        }
        Ok(Self(Zeroizing::new(trimmed.to_owned())))
    }

    /// The secret itself. Whoever calls this sees to it that it is not printed.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where a secret file is: in the directory of systemd's credentials if one of its name is there,
/// else where the configuration says.
pub fn located(configured: &Path) -> PathBuf {
    located_in(
        std::env::var_os("CREDENTIALS_DIRECTORY")
            .as_deref()
            .map(Path::new),
        configured,
    )
}

fn located_in(credentials: Option<&Path>, configured: &Path) -> PathBuf {
    let credential = credentials
        .zip(configured.file_name())
        .map(|(directory, name)| directory.join(name))
        .filter(|path| path.is_file());
    credential.unwrap_or_else(|| configured.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_come_first() {
        let directory = tempfile::tempdir().unwrap();
        let configured = Path::new("/etc/clawback/contoso.secret");
        let credential = directory.path().join("contoso.secret");
        assert_eq!(located_in(Some(directory.path()), configured), configured);
        std::fs::write(&credential, "s3cret\n").unwrap();
        assert_eq!(located_in(Some(directory.path()), configured), credential);
        assert_eq!(located_in(None, configured), configured);
    }

    #[test]
    fn secrets_are_not_printed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, "s3cret\r\n").unwrap();
        let secret = Secret::read(&path).unwrap();
        assert_eq!(secret.expose(), "s3cret");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        std::fs::write(&path, "\n").unwrap();
        let error = Secret::read(&path).unwrap_err().to_string();
        assert!(error.contains("is empty"), "{error}");
    }
}
