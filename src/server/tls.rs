//! The receiver's side of TLS: what is served, its exchange when the files change, and the names
//! that peers prove.
//!
//! A new certificate is read and judged before it takes the place of the old one; if anything is
//! wrong, the old one stays. Sessions under way keep what they began with.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ProducesTickets, WebPkiClientVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, ServerConnection,
    SignatureScheme, SupportedProtocolVersion,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use tracing::{error, info, warn};

use super::clock;
use crate::certs::{self, CertError, Identity};
use crate::config::Config;
use crate::telemetry::metric;

/// TLS 1.2 and 1.3; rustls has nothing older.
static VERSIONS: [&SupportedProtocolVersion; 2] =
    [&rustls::version::TLS13, &rustls::version::TLS12];

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate or the key.
    #[error(transparent)]
    Certificate(#[from] CertError),
    /// The authorities that vouch for client certificates.
    #[error("{}: no certificate authorities in PEM form ({detail}); it is network.ca_file", file.display())]
    Authorities {
        /// Which file.
        file: PathBuf,
        /// What was seen.
        detail: String,
    },
    /// rustls refused what it was given.
    #[error("TLS cannot be set up: {0}; this is a defect of the program")]
    Setup(String),
}

/// What is served now, and where it comes from.
pub(crate) struct Tls {
    served: ArcSwap<Served>,
    /// What the files looked like when they were last tried, good or bad.
    tried: Mutex<Option<Stamp>>,
    tickets: Arc<dyn ProducesTickets>,
}

/// A set of things that belong together.
pub(crate) struct Served {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) identity: Identity,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

/// Enough of a file's state to see a change.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp(Vec<(PathBuf, Option<(SystemTime, u64)>)>);

impl Stamp {
    fn of(files: [&Path; 2]) -> Self {
        let state = |path: &Path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        Self(files.map(|path| (path.to_path_buf(), state(path))).to_vec())
    }

    fn of_config(config: &Config) -> Self {
        Self::of([&config.smtp.certificate, &config.smtp.private_key])
    }
}

impl Tls {
    /// Reads what the configuration names.
    ///
    /// # Errors
    ///
    /// [`TlsError`]: the administrator must change something; the service does not start.
    pub(crate) fn start(config: &Config, asks_certificates: bool) -> Result<Self, TlsError> {
        let tickets = rustls::crypto::aws_lc_rs::Ticketer::new()
            .map_err(|error| TlsError::Setup(error.to_string()))?;
        let stamp = Stamp::of_config(config);
        let served = Served::load(config, asks_certificates, &tickets, clock::wall())?;
        Ok(Self {
            served: ArcSwap::from_pointee(served),
            tried: Mutex::new(Some(stamp)),
            tickets,
        })
    }

    /// What new handshakes are to use.
    pub(crate) fn served(&self) -> Arc<Served> {
        self.served.load_full()
    }

    /// Takes what a changed configuration names.
    ///
    /// # Errors
    ///
    /// [`TlsError`]; the old certificate stays.
    pub(crate) fn reload(&self, config: &Config, asks_certificates: bool) -> Result<(), TlsError> {
        let stamp = Stamp::of_config(config);
        let loaded = Served::load(config, asks_certificates, &self.tickets, clock::wall());
        *self.tried.lock().unwrap_or_else(PoisonError::into_inner) = Some(stamp);
        self.served.store(Arc::new(loaded?));
        Ok(())
    }

    /// Looks whether the files have changed, and takes them if they are good.
    pub(crate) fn refresh(&self, config: &Config, asks_certificates: bool) {
        let stamp = Stamp::of_config(config);
        if self
            .tried
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            == Some(&stamp)
        {
            return;
        }
        match self.reload(config, asks_certificates) {
            Ok(()) => info!(
                file = %config.smtp.certificate.display(),
                "new certificate in use until {}", self.served().identity.not_after
            ),
            Err(error) => error!(%error, "the old certificate stays in use"),
        }
    }

    /// Publishes how long the certificate is good for.
    pub(crate) fn publish_expiry(&self, now: Timestamp) {
        let identity = &self.served().identity;
        let left = identity.not_after.as_second() - now.as_second();
        #[expect(clippy::cast_precision_loss, reason = "far less than 2^52 seconds")]
        metrics::gauge!(metric::CERTIFICATE_SECONDS_LEFT).set(left as f64);
    }
}

impl Served {
    fn load(
        config: &Config,
        asks_certificates: bool,
        tickets: &Arc<dyn ProducesTickets>,
        now: Timestamp,
    ) -> Result<Self, TlsError> {
        let identity = Identity::load(&config.smtp.certificate, &config.smtp.private_key, now)?;
        if !identity.covers(&config.smtp.hostname) {
            warn!(
                file = %config.smtp.certificate.display(),
                "the certificate is not for smtp.hostname {:?} but for {:?}; \
                 a connector that checks the name refuses it", config.smtp.hostname, identity.names
            );
        }
        let verifier = match asks_certificates {
            true => Some(verifier(config)?),
            false => None,
        };
        let setup = |error: rustls::Error| TlsError::Setup(error.to_string());
        let builder = ServerConfig::builder_with_provider(certs::provider())
            .with_protocol_versions(&VERSIONS)
            .map_err(setup)?;
        let builder = match &verifier {
            Some(verifier) => {
                builder.with_client_cert_verifier(Arc::new(Lenient(Arc::clone(verifier))))
            }
            None => builder.with_no_client_auth(),
        };
        let key = rustls::sign::SingleCertAndKey::from(Arc::clone(&identity.key));
        let mut server = builder.with_cert_resolver(Arc::new(key));
        server.ticketer = Arc::clone(tickets);
        // One ticket is enough for a peer that keeps few connections; the default is two.
        server.send_tls13_tickets = 1;
        Ok(Self {
            config: Arc::new(server),
            identity,
            verifier,
        })
    }

    /// The names that the peer proved: those of its certificate, if a trusted authority vouches for
    /// it now. Everything else is no name at all.
    pub(crate) fn proven_names(&self, connection: &ServerConnection) -> Vec<String> {
        let (Some(verifier), Some(chain)) = (&self.verifier, connection.peer_certificates()) else {
            return Vec::new();
        };
        let Some((leaf, rest)) = chain.split_first() else {
            return Vec::new();
        };
        match verifier.verify_client_cert(leaf, rest, certs::unix_time(clock::wall())) {
            Ok(_) => certs::names(leaf).unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }
}

/// Judges client certificates by the public authorities and those of `network.ca_file`.
fn verifier(config: &Config) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = certs::public_roots();
    if let Some(file) = &config.network.ca_file {
        add_roots(&mut roots, file).map_err(|detail| TlsError::Authorities {
            file: file.clone(),
            detail,
        })?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), certs::provider())
        .build()
        .map_err(|error| TlsError::Setup(error.to_string()))
}

/// Adds the certificates of a PEM file.
fn add_roots(roots: &mut RootCertStore, file: &Path) -> Result<(), String> {
    let octets = std::fs::read(file).map_err(|error| error.to_string())?;
    for certificate in CertificateDer::pem_slice_iter(&octets) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Asks for a client certificate, but ends no handshake because of one: a peer whose certificate
/// nobody vouches for is a peer without a name, and its reports are judged as such.
///
/// That the peer holds the key is still checked.
#[derive(Debug)]
struct Lenient(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Lenient {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: the names of all public authorities would be 15 kB in each handshake.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _rest: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.0
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.0
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
