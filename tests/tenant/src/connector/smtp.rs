//! An SMTP client session (RFC 5321) with STARTTLS (3207), SIZE (1870), PIPELINING (2920) and CHUNKING (3030).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{SmartHost, Tls};
use crate::TenantError;
use crate::ca::{Authority, provider};

/// Most octets of one reply.
const REPLY: usize = 64 << 10;

/// Makes connections to one smart host.
pub(super) struct Client {
    host: SmartHost,
    tls: TlsConnector,
    name: ServerName<'static>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// A reply that was not the hoped-for one.
    Reply(Reply),
    /// The connection was refused, lost, or cannot be trusted.
    Lost(String),
    /// The message cannot be sent to this host.
    Impossible(&'static str),
}

impl Failure {
    pub(super) fn lost(why: impl fmt::Display) -> Self {
        Self::Lost(why.to_string())
    }

    /// Whether another attempt is useless.
    pub(super) fn is_permanent(&self) -> bool {
        match self {
            Self::Reply(reply) => reply.code >= 500,
            Self::Lost(_) => false,
            Self::Impossible(_) => true,
        }
    }

    /// Whether the connection is of no more use.
    pub(super) const fn is_over(&self) -> bool {
        match self {
            Self::Reply(reply) => reply.code == 421,
            Self::Lost(_) => true,
            Self::Impossible(_) => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply(reply) => write!(f, "{} {}", reply.code, reply.text.join(" / ")),
            Self::Lost(why) => f.write_str(why),
            Self::Impossible(why) => f.write_str(why),
        }
    }
}

/// A reply, all its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) code: u16,
    pub(super) text: Vec<String>,
}

/// What EHLO announced.
#[derive(Debug, Clone, Default)]
struct Features {
    starttls: bool,
    pipelining: bool,
    chunking: bool,
    eight_bit: bool,
    size: Option<u64>,
}

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// An open session, ready for a mail transaction.
pub(super) struct Connection {
    wire: Box<dyn Wire>,
    buffer: Vec<u8>,
    features: Features,
    patience: Duration,
}

impl Client {
    /// # Errors
    ///
    /// If the authority's PEM or the server's name cannot be read.
    pub(super) fn new(host: &SmartHost, own: Option<&Authority>) -> Result<Self, TenantError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(host.ca_pem.as_bytes()) {
            roots.add(certificate.map_err(|error| TenantError::Pem(error.to_string()))?)?;
        }
        let builder = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_root_certificates(roots);
        let config = match own.filter(|_| host.client_certificate) {
            Some(authority) => {
                let (chain, key) = authority.leaf(&["mail.protection.outlook.com"])?.identity();
                builder.with_client_auth_cert(chain, key)?
            }
            None => builder.with_no_client_auth(),
        };
        let name = ServerName::try_from(host.server_name.clone())
            .map_err(|error| TenantError::Pem(error.to_string()))?;
        Ok(Self {
            host: host.clone(),
            tls: TlsConnector::from(Arc::new(config)),
            name,
        })
    }

    /// Connects, greets, and starts TLS as the host asks.
    pub(super) async fn connect(&self) -> Result<Connection, Failure> {
        let patience = self.host.patience;
        let stream = timeout(patience, TcpStream::connect(self.host.addr))
            .await
            .map_err(Failure::lost)?
            .map_err(Failure::lost)?;
        stream.set_nodelay(true).map_err(Failure::lost)?;
        let mut plain = Connection {
            wire: Box::new(stream),
            buffer: Vec::new(),
            features: Features::default(),
            patience,
        };
        expect(plain.reply().await?, 2)?;
        plain.hello(&self.host.helo).await?;
        let wanted = match self.host.tls {
            Tls::Required => true,
            Tls::Opportunistic => plain.features.starttls,
            Tls::Off => false,
        };
        if !wanted {
            return Ok(plain);
        }
        if !plain.features.starttls {
            return Err(Failure::lost("the smart host does not offer STARTTLS"));
        }
        expect(plain.command("STARTTLS").await?, 2)?;
        if !plain.buffer.is_empty() {
            return Err(Failure::lost("octets stand behind the reply to STARTTLS"));
        }
        let handshake = self.tls.connect(self.name.clone(), plain.wire);
        let stream = timeout(patience, handshake)
            .await
            .map_err(Failure::lost)?
            .map_err(Failure::lost)?;
        let mut secure = Connection {
            wire: Box::new(stream),
            buffer: Vec::new(),
            features: Features::default(),
            patience,
        };
        secure.hello(&self.host.helo).await?;
        Ok(secure)
    }
}

impl Connection {
    /// One mail transaction; true if BDAT carried it.
    pub(super) async fn send(
        &mut self,
        host: &SmartHost,
        reverse_path: Option<&str>,
        octets: &[u8],
    ) -> Result<bool, Failure> {
        if self
            .features
            .size
            .is_some_and(|most| most > 0 && octets.len() as u64 > most)
        {
            return Err(Failure::Impossible(
                "552 5.3.4 the message is larger than the smart host takes",
            ));
        }
        let bare = has_bare_line_feed(octets);
        if bare && !self.features.chunking {
            return Err(Failure::Impossible(
                "550 5.6.11 SMTPSEND.BareLinefeedsAreIllegal; the smart host does not offer CHUNKING",
            ));
        }
        let bdat = self.features.chunking && (host.bdat || bare);
        let body = if self.features.eight_bit && !octets.is_ascii() {
            " BODY=8BITMIME"
        } else {
            ""
        };
        let size = self
            .features
            .size
            .map(|_| format!(" SIZE={}", octets.len()))
            .unwrap_or_default();
        let mail = format!(
            "MAIL FROM:<{}>{size}{body}\r\n",
            reverse_path.unwrap_or_default()
        );
        let recipient = format!("RCPT TO:<{}>\r\n", host.journal_address);
        let result = if self.features.pipelining && host.pipelining {
            self.group(&mail, &recipient, bdat).await
        } else {
            self.one_by_one(&mail, &recipient, bdat).await
        };
        let result = match result {
            Ok(()) if bdat => self.chunks(octets, host).await,
            Ok(()) => self.data(octets).await,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = &result
            && !failure.is_over()
        {
            expect(self.command("RSET").await?, 2)?;
        }
        result.map(|()| bdat)
    }

    /// MAIL, RCPT and DATA in one go (RFC 2920 §3.1); all replies are read, the first refusal counts.
    async fn group(&mut self, mail: &str, recipient: &str, bdat: bool) -> Result<(), Failure> {
        let data = if bdat { "" } else { "DATA\r\n" };
        self.write(format!("{mail}{recipient}{data}").as_bytes())
            .await?;
        let mail = expect(self.reply().await?, 2);
        let recipient = expect(self.reply().await?, 2);
        if bdat {
            return mail.and(recipient).map(drop);
        }
        let data = self.reply().await?;
        if data.code == 354 && (mail.is_err() || recipient.is_err()) {
            // The server waits for content although nobody is to get it: give it none.
            self.write(b".\r\n").await?;
            self.reply().await?;
        }
        mail.and(recipient)?;
        expect(data, 3).map(drop)
    }

    async fn one_by_one(&mut self, mail: &str, recipient: &str, bdat: bool) -> Result<(), Failure> {
        for command in [mail, recipient] {
            self.write(command.as_bytes()).await?;
            expect(self.reply().await?, 2)?;
        }
        if !bdat {
            expect(self.command("DATA").await?, 3)?;
        }
        Ok(())
    }

    /// The content after 354, dots doubled (RFC 5321 §4.5.2).
    async fn data(&mut self, octets: &[u8]) -> Result<(), Failure> {
        let mut stuffed = Vec::with_capacity(octets.len() + octets.len() / 64 + 5);
        let mut at_line_start = true;
        for octet in octets {
            if at_line_start && *octet == b'.' {
                stuffed.push(b'.');
            }
            stuffed.push(*octet);
            at_line_start = *octet == b'\n';
        }
        if !stuffed.ends_with(b"\r\n") {
            stuffed.extend_from_slice(b"\r\n");
        }
        stuffed.extend_from_slice(b".\r\n");
        self.write(&stuffed).await?;
        expect(self.reply().await?, 2).map(drop)
    }

    /// The content in BDAT chunks (RFC 3030 §3).
    async fn chunks(&mut self, octets: &[u8], host: &SmartHost) -> Result<(), Failure> {
        let count = octets.len().div_ceil(host.chunk.max(1)).max(1);
        let mut chunks = octets.chunks(host.chunk.max(1));
        for number in 1..=count {
            let chunk = chunks.next().unwrap_or_default();
            let last = if number == count { " LAST" } else { "" };
            let mut written = format!("BDAT {}{last}\r\n", chunk.len()).into_bytes();
            written.extend_from_slice(chunk);
            self.write(&written).await?;
            expect(self.reply().await?, 2)?;
        }
        Ok(())
    }

    /// Takes leave.
    pub(super) async fn quit(mut self) {
        // Whether the other side answers does not matter any more.
        if let Err(failure) = self.command("QUIT").await {
            tracing::debug!(%failure, "no answer to QUIT");
        }
    }

    async fn hello(&mut self, name: &str) -> Result<(), Failure> {
        let reply = expect(self.command(&format!("EHLO {name}")).await?, 2)?;
        let mut features = Features::default();
        for line in reply
            .text
            .iter()
            .skip(1)
            .map(|line| line.to_ascii_uppercase())
        {
            let mut words = line.split_whitespace();
            match words.next().unwrap_or_default() {
                "STARTTLS" => features.starttls = true,
                "PIPELINING" => features.pipelining = true,
                "CHUNKING" => features.chunking = true,
                "8BITMIME" => features.eight_bit = true,
                "SIZE" => {
                    features.size =
                        Some(words.next().and_then(|size| size.parse().ok()).unwrap_or(0))
                }
                _ => {}
            }
        }
        self.features = features;
        Ok(())
    }

    async fn command(&mut self, line: &str) -> Result<Reply, Failure> {
        self.write(format!("{line}\r\n").as_bytes()).await?;
        self.reply().await
    }

    async fn write(&mut self, octets: &[u8]) -> Result<(), Failure> {
        let write = async {
            self.wire.write_all(octets).await?;
            self.wire.flush().await
        };
        timeout(self.patience, write)
            .await
            .map_err(Failure::lost)?
            .map_err(Failure::lost)
    }

    async fn reply(&mut self) -> Result<Reply, Failure> {
        timeout(self.patience, self.read_reply())
            .await
            .map_err(Failure::lost)?
    }

    /// All lines of one reply (RFC 5321 §4.2).
    async fn read_reply(&mut self) -> Result<Reply, Failure> {
        let mut reply = Reply {
            code: 0,
            text: Vec::new(),
        };
        loop {
            let line = self.line().await?;
            let code = line.get(..3).and_then(|code| code.parse().ok());
            let code = code.ok_or_else(|| Failure::Lost(format!("{line:?} is no SMTP reply")))?;
            reply.code = code;
            reply
                .text
                .push(line.get(4..).unwrap_or_default().to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(reply);
            }
        }
    }

    async fn line(&mut self) -> Result<String, Failure> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if self.buffer.len() > REPLY {
                return Err(Failure::lost("a reply without end"));
            }
            if self
                .wire
                .read_buf(&mut self.buffer)
                .await
                .map_err(Failure::lost)?
                == 0
            {
                return Err(Failure::lost("the smart host closed the connection"));
            }
        }
    }
}

/// The reply if its code begins with this digit.
fn expect(reply: Reply, digit: u16) -> Result<Reply, Failure> {
    if reply.code / 100 == digit {
        Ok(reply)
    } else {
        Err(Failure::Reply(reply))
    }
}

/// Whether a LF stands without CR before it.
fn has_bare_line_feed(octets: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', octets).any(|at| at == 0 || octets.get(at - 1) != Some(&b'\r'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_line_feeds() {
        for (octets, expected) in [
            (&b"a\r\nb\r\n"[..], false),
            (b"a\nb", true),
            (b"\n", true),
            (b"", false),
            (b"a\rb", false),
        ] {
            assert_eq!(has_bare_line_feed(octets), expected, "{octets:?}");
        }
    }
}
