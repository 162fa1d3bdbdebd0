//! The SMTP certificate: read and judged, or made.
//!
//! In: paths of PEM files. Out: an [`Identity`] that rustls serves, whose key matches and whose time
//! has come and not passed; or a [`CertError`] that names the file and the mend. Used by the
//! receiver before it swaps certificates, and by the commands that only look.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

mod make;

pub use make::{Authority, MakeError, Pair};

/// The one TLS provider of the process. It is passed to every builder: a process with two in its
/// tree cannot choose, and rustls panics.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::LazyLock<Arc<CryptoProvider>> =
        std::sync::LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

/// Mozilla's list of public certificate authorities, as it was when this program was built.
pub fn public_roots() -> RootCertStore {
    RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    }
}

/// Why a certificate or key cannot be used. Each names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// The file is not there.
    #[error("{}: no such file; put the {what} there, name another file in the configuration, \
             or make one with \"clawback certs self-signed\"", file.display())]
    Missing {
        /// Which file.
        file: PathBuf,
        /// What it should hold.
        what: What,
    },
    /// The file cannot be read.
    #[error("{}: the {what} cannot be read ({error}); make it readable for the user that the service runs as", file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What it should hold.
        what: What,
        /// What the system said.
        error: io::Error,
    },
    /// The file holds nothing of the kind in PEM.
    #[error("{}: no {what} in PEM form ({detail}); it should begin with \"{}\"", file.display(), what.begins())]
    NotPem {
        /// Which file.
        file: PathBuf,
        /// What it should hold.
        what: What,
        /// What was seen.
        detail: String,
    },
    /// The file is PEM but what it holds is broken or of an unknown kind.
    #[error("{}: the {what} cannot be used ({detail}); take an ECDSA P-256 or RSA one", file.display())]
    Unusable {
        /// Which file.
        file: PathBuf,
        /// What it should hold.
        what: What,
        /// What was seen.
        detail: String,
    },
    /// The key is not the certificate's.
    #[error("{}: the private key does not match the first certificate of {}; \
             both files must come from the same issue", key.display(), certificate.display())]
    Mismatch {
        /// File of the certificate.
        certificate: PathBuf,
        /// File of the key.
        key: PathBuf,
    },
    /// The certificate's time is over.
    #[error("{}: the certificate ended at {ended}; renew it, Exchange Online refuses it", file.display())]
    Expired {
        /// Which file.
        file: PathBuf,
        /// When it ended.
        ended: Timestamp,
    },
    /// The certificate's time has not come.
    #[error("{}: the certificate begins at {begins} only; is the clock right?", file.display())]
    NotYetValid {
        /// Which file.
        file: PathBuf,
        /// When it begins.
        begins: Timestamp,
    },
}

/// What a file should hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A certificate and those that vouch for it.
    Certificate,
    /// The key of a certificate.
    PrivateKey,
}

impl What {
    /// The first line of such a file.
    fn begins(self) -> &'static str {
        match self {
            Self::Certificate => "-----BEGIN CERTIFICATE-----",
            Self::PrivateKey => "-----BEGIN PRIVATE KEY-----",
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "certificate",
            Self::PrivateKey => "private key",
        })
    }
}

/// A certificate with its chain and its key, ready to serve.
#[derive(Debug, Clone)]
pub struct Identity {
    /// What rustls serves.
    pub key: Arc<CertifiedKey>,
    /// The names that the certificate is for: its subject alternative names, as written.
    pub names: Vec<String>,
    /// When its time begins.
    pub not_before: Timestamp,
    /// When its time ends.
    pub not_after: Timestamp,
}

impl Identity {
    /// Reads and judges a certificate chain (leaf first) and its key, both PEM.
    ///
    /// # Errors
    ///
    /// [`CertError`]: the administrator must change something.
    pub fn load(certificate: &Path, private_key: &Path, now: Timestamp) -> Result<Self, CertError> {
        let chain = read_chain(certificate)?;
        let key = read_key(private_key)?;
        let signer = provider()
            .key_provider
            .load_private_key(key)
            .map_err(|error| CertError::Unusable {
                file: private_key.into(),
                what: What::PrivateKey,
                detail: error.to_string(),
            })?;
        let unusable = |detail: String| CertError::Unusable {
            file: certificate.into(),
            what: What::Certificate,
            detail,
        };
        let facts = Facts::read(&chain).map_err(unusable)?;
        let key = CertifiedKey::new(chain, signer);
        match key.keys_match() {
            Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
                return Err(CertError::Mismatch {
                    certificate: certificate.into(),
                    key: private_key.into(),
                });
            }
            // `Unknown` says that the key cannot tell: the handshake will.
            Ok(()) | Err(rustls::Error::InconsistentKeys(_)) => {}
            Err(error) => return Err(unusable(error.to_string())),
        }
        if now >= facts.not_after {
            return Err(CertError::Expired {
                file: certificate.into(),
                ended: facts.not_after,
            });
        }
        if now < facts.not_before {
            return Err(CertError::NotYetValid {
                file: certificate.into(),
                begins: facts.not_before,
            });
        }
        Ok(Self {
            key: Arc::new(key),
            names: facts.names,
            not_before: facts.not_before,
            not_after: facts.not_after,
        })
    }

    /// Whole days until the certificate ends; 0 on its last day and after.
    pub fn days_left(&self, now: Timestamp) -> u64 {
        let seconds = self.not_after.as_second().saturating_sub(now.as_second());
        u64::try_from(seconds).unwrap_or(0) / (24 * 60 * 60)
    }

    /// Whether the certificate is for this host name (RFC 6125: a wildcard stands for one label).
    pub fn covers(&self, hostname: &str) -> bool {
        self.names.iter().any(|name| {
            name.eq_ignore_ascii_case(hostname)
                || name.strip_prefix("*.").is_some_and(|rest| {
                    hostname.split_once('.').is_some_and(|(label, parent)| {
                        !label.is_empty() && parent.eq_ignore_ascii_case(rest)
                    })
                })
        })
    }

    /// Whether Mozilla's public authorities vouch for the certificate under this name. A connector
    /// that asks for a certificate "issued by a trusted certificate authority" needs that.
    ///
    /// # Errors
    ///
    /// What is wrong, in the verifier's words.
    pub fn check_public_trust(&self, hostname: &str, now: Timestamp) -> Result<(), String> {
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(public_roots()), provider())
                .build()
                .map_err(|error| error.to_string())?;
        let name = ServerName::try_from(hostname.to_owned()).map_err(|error| error.to_string())?;
        let (leaf, rest) = self.key.cert.split_first().ok_or("the chain is empty")?;
        verifier
            .verify_server_cert(leaf, rest, &name, &[], unix_time(now))
            .map(drop)
            .map_err(|error| error.to_string())
    }
}

/// The time in the form that certificate verifiers take; before 1970 it is 1970.
pub fn unix_time(now: Timestamp) -> UnixTime {
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
}

/// The names in a certificate: its DNS names and addresses, else its common name.
///
/// # Errors
///
/// The certificate cannot be parsed; the text says why.
pub fn names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    let mut names = Vec::new();
    if let Ok(Some(extension)) = parsed.subject_alternative_name() {
        for name in &extension.value.general_names {
            match name {
                GeneralName::DNSName(name) => names.push((*name).to_owned()),
                GeneralName::IPAddress(octets) => names.extend(ip_text(octets)),
                _ => {}
            }
        }
    }
    if names.is_empty() {
        let common = parsed.subject().iter_common_name();
        names.extend(common.filter_map(|name| name.as_str().ok().map(str::to_owned)));
    }
    Ok(names)
}

/// An address in a certificate: four or sixteen octets.
fn ip_text(octets: &[u8]) -> Option<String> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Some(std::net::Ipv4Addr::from(octets).to_string());
    }
    let octets = <[u8; 16]>::try_from(octets).ok()?;
    Some(std::net::Ipv6Addr::from(octets).to_string())
}

/// What the leaf says of itself.
struct Facts {
    names: Vec<String>,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Facts {
    fn read(chain: &[CertificateDer<'_>]) -> Result<Self, String> {
        let leaf = chain.first().ok_or("the chain is empty")?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| error.to_string())?;
        let validity = parsed.validity();
        let time =
            |seconds: i64| Timestamp::from_second(seconds).map_err(|error| error.to_string());
        Ok(Self {
            names: names(leaf)?,
            not_before: time(validity.not_before.timestamp())?,
            not_after: time(validity.not_after.timestamp())?,
        })
    }
}

/// The certificates of a file, leaf first.
fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let octets = read(file, What::Certificate)?;
    let not_pem = |detail: String| CertError::NotPem {
        file: file.into(),
        what: What::Certificate,
        detail,
    };
    let chain = CertificateDer::pem_slice_iter(&octets)
        .collect::<Result<Vec<_>, pem::Error>>()
        .map_err(|error| not_pem(error.to_string()))?;
    if chain.is_empty() {
        return Err(not_pem("nothing of the kind in it".to_owned()));
    }
    Ok(chain)
}

/// The first private key of a file: PKCS #8, SEC 1 or PKCS #1.
fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, CertError> {
    let octets = zeroize::Zeroizing::new(read(file, What::PrivateKey)?);
    PrivateKeyDer::from_pem_slice(&octets).map_err(|error| CertError::NotPem {
        file: file.into(),
        what: What::PrivateKey,
        detail: match error {
            pem::Error::NoItemsFound => "nothing of the kind in it; it may be encrypted".to_owned(),
            other => other.to_string(),
        },
    })
}

/// A file's octets.
fn read(file: &Path, what: What) -> Result<Vec<u8>, CertError> {
    std::fs::read(file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => CertError::Missing {
            file: file.into(),
            what,
        },
        _ => CertError::Unreadable {
            file: file.into(),
            what,
            error,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-06-01, inside the time of every certificate that the tests make.
    fn now() -> Timestamp {
        "2026-06-01T00:00:00Z".parse().unwrap()
    }

    fn load(certificate: &str, key: &str) -> Result<Identity, CertError> {
        let directory = tempfile::tempdir().unwrap();
        let files = ["c.pem", "k.pem"].map(|name| directory.path().join(name));
        std::fs::write(&files[0], certificate).unwrap();
        std::fs::write(&files[1], key).unwrap();
        Identity::load(&files[0], &files[1], now())
    }

    #[test]
    fn a_pair_is_loaded_with_its_facts() {
        let pair = Pair::self_signed("mx.example.com", now(), 90).unwrap();
        let identity = load(&pair.certificate, &pair.private_key).unwrap();
        assert_eq!(identity.names, ["mx.example.com"]);
        assert!((89..=90).contains(&identity.days_left(now())));
        assert!(identity.covers("MX.example.com"));
        assert!(!identity.covers("other.example.com"));
        assert!(
            identity
                .check_public_trust("mx.example.com", now())
                .is_err()
        );
    }

    #[test]
    fn every_defect_names_the_file_and_the_mend() {
        let good = Pair::self_signed("mx.example.com", now(), 90).unwrap();
        let other = Pair::self_signed("mx.example.com", now(), 90).unwrap();
        let year = jiff::SignedDuration::from_hours(24 * 365);
        let old = Pair::self_signed("mx.example.com", now() - year, 90).unwrap();
        let early = Pair::self_signed("mx.example.com", now() + year, 90).unwrap();
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (name, certificate, key, file, mend) in [
            (
                "text for a certificate",
                "hello",
                good.private_key.as_str(),
                "c.pem",
                "should begin with",
            ),
            (
                "key for a certificate",
                good.private_key.as_str(),
                good.private_key.as_str(),
                "c.pem",
                "should begin with",
            ),
            (
                "certificate for a key",
                good.certificate.as_str(),
                good.certificate.as_str(),
                "k.pem",
                "should begin with",
            ),
            (
                "not a certificate inside",
                broken,
                good.private_key.as_str(),
                "c.pem",
                "take an ECDSA",
            ),
            (
                "another's key",
                good.certificate.as_str(),
                other.private_key.as_str(),
                "k.pem",
                "same issue",
            ),
            (
                "over",
                old.certificate.as_str(),
                old.private_key.as_str(),
                "c.pem",
                "renew it",
            ),
            (
                "to come",
                early.certificate.as_str(),
                early.private_key.as_str(),
                "c.pem",
                "is the clock right",
            ),
        ] {
            let text = load(certificate, key).map(drop).unwrap_err().to_string();
            assert!(text.contains(file) && text.contains(mend), "{name}: {text}");
        }
        let text = Identity::load(Path::new("/nonexistent/c.pem"), Path::new("k.pem"), now())
            .unwrap_err()
            .to_string();
        assert!(
            text.starts_with("/nonexistent/c.pem: no such file; put the certificate there"),
            "{text}"
        );
        let text = Identity::load(Path::new("/"), Path::new("k.pem"), now())
            .unwrap_err()
            .to_string();
        assert!(
            text.starts_with("/: the certificate cannot be read"),
            "{text}"
        );
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let pair = Pair::self_signed("*.example.com", now(), 90).unwrap();
        let identity = load(&pair.certificate, &pair.private_key).unwrap();
        for (hostname, expected) in [
            ("mx.example.com", true),
            ("a.mx.example.com", false),
            ("example.com", false),
            (".example.com", false),
        ] {
            assert_eq!(identity.covers(hostname), expected, "{hostname}");
        }
    }
}
