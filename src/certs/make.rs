//! Certificates made here: one that vouches for itself, or a private authority and what it vouches
//! for. ECDSA P-256, which costs a session a quarter of what RSA does.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use zeroize::Zeroizing;

/// No certificate is made for longer: 100 years.
const LONGEST_DAYS: u32 = 36_500;

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The library refused, most often because of a name.
    #[error(
        "no certificate for {name:?} can be made: {source}; a host name has only ASCII letters, digits, dots and hyphens"
    )]
    Refused {
        /// The name asked for.
        name: String,
        /// What it said.
        source: rcgen::Error,
    },
}

/// A certificate and its key, both PEM.
pub struct Pair {
    /// The certificate, then those that vouch for it.
    pub certificate: String,
    /// The key (PKCS #8).
    pub private_key: Zeroizing<String>,
}

impl Pair {
    /// A certificate for `hostname` that nobody but itself vouches for. It is marked as no
    /// authority: a client that trusts just this file would refuse it otherwise.
    ///
    /// # Errors
    ///
    /// The name is none.
    pub fn self_signed(hostname: &str, now: Timestamp, days: u32) -> Result<Self, MakeError> {
        let refused = refused(hostname);
        let key = KeyPair::generate().map_err(&refused)?;
        let parameters = server(hostname, now, days).map_err(&refused)?;
        let certificate = parameters.self_signed(&key).map_err(&refused)?;
        Ok(Self {
            certificate: certificate.pem(),
            private_key: Zeroizing::new(key.serialize_pem()),
        })
    }
}

/// A private certificate authority. Its key lives only as long as this value.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// A new authority of this name.
    ///
    /// # Errors
    ///
    /// The name is none.
    pub fn new(name: &str, now: Timestamp, days: u32) -> Result<Self, MakeError> {
        let refused = refused(name);
        let key = KeyPair::generate().map_err(&refused)?;
        let mut parameters = CertificateParams::default();
        valid(&mut parameters, now, days);
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(parameters, key).map_err(&refused)?;
        Ok(Self(issuer))
    }

    /// The authority's own certificate, PEM: what clients trust.
    pub fn certificate(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a server, or for a client that proves its name.
    ///
    /// # Errors
    ///
    /// The name is none.
    pub fn issue(&self, hostname: &str, now: Timestamp, days: u32) -> Result<Pair, MakeError> {
        let refused = refused(hostname);
        let key = KeyPair::generate().map_err(&refused)?;
        let mut parameters = server(hostname, now, days).map_err(&refused)?;
        parameters.use_authority_key_identifier_extension = true;
        parameters
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ClientAuth);
        let certificate = parameters.signed_by(&key, &self.0).map_err(&refused)?;
        Ok(Pair {
            certificate: certificate.pem(),
            private_key: Zeroizing::new(key.serialize_pem()),
        })
    }
}

/// The error for this name.
fn refused(name: &str) -> impl Fn(rcgen::Error) -> MakeError + '_ {
    move |source| MakeError::Refused {
        name: name.to_owned(),
        source,
    }
}

/// A server's certificate for one host name or address.
fn server(hostname: &str, now: Timestamp, days: u32) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new([hostname.to_owned()])?;
    valid(&mut parameters, now, days);
    parameters
        .distinguished_name
        .push(DnType::CommonName, hostname);
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(parameters)
}

/// From yesterday, so that a client whose clock is behind takes it, for `days` (at most [`LONGEST_DAYS`])
/// from now.
fn valid(parameters: &mut CertificateParams, now: Timestamp, days: u32) {
    let day = SignedDuration::from_hours(24);
    let date = |time: Timestamp| {
        let date = time.to_zoned(TimeZone::UTC).date();
        date_time_ymd(date.year().into(), month(date.month()), month(date.day()))
    };
    parameters.not_before = date(now - day);
    parameters.not_after = date(now + day * i32::try_from(days.min(LONGEST_DAYS)).unwrap_or(0));
}

/// A month or a day of one: never negative.
fn month(number: i8) -> u8 {
    number.unsigned_abs()
}
