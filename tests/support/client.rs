//! An SMTP client that does exactly what a test says, over plain TCP or TLS.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use clawback::certs::{self, Pair};

/// A test that waits longer for the peer has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a stream over TCP or TLS can do.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection to an SMTP server.
pub(crate) struct Client {
    stream: Box<dyn Stream>,
    /// What was read and not yet given out.
    unread: Vec<u8>,
}

/// One reply: its code and its lines without code and line ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    pub(crate) lines: Vec<String>,
}

impl Reply {
    /// The reply as one text: code and last line.
    pub(crate) fn text(&self) -> String {
        let last = self.lines.last().map_or("", String::as_str);
        format!("{} {last}", self.code)
    }
}

impl Client {
    /// Connects and says nothing.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.expect("connects"))
    }

    /// Connects from another loopback address.
    pub(crate) async fn connect_from(address: SocketAddr, from: [u8; 4]) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind(SocketAddr::from((from, 0)))
            .expect("a loopback address");
        Self::over(socket.connect(address).await.expect("connects"))
    }

    /// Connects, sends commands and reads no reply, until the peer has no room for another and has
    /// stopped to read. Small receive buffers would not do: then even its acknowledgements get lost.
    pub(crate) async fn deaf(address: SocketAddr) -> Self {
        let mut client = Self::connect(address).await;
        let commands = "EHLO deaf.example\r\n".repeat(100);
        let full = Duration::from_millis(500);
        while let Ok(sent) = timeout(full, client.stream.write_all(commands.as_bytes())).await {
            sent.expect("the peer reads until it has to wait");
        }
        client
    }

    /// The same, and how many TLS records have come from the peer.
    pub(crate) fn counting_records(self) -> (Self, Arc<AtomicUsize>) {
        let records = Arc::<AtomicUsize>::default();
        let stream = Records {
            stream: self.stream,
            header: Vec::new(),
            left: 0,
            records: Arc::clone(&records),
        };
        let client = Self {
            stream: Box::new(stream),
            unread: self.unread,
        };
        (client, records)
    }

    /// As [`encrypted`](Self::encrypted), to a peer that may be gone, or go in the middle.
    pub(crate) async fn try_encrypted(address: SocketAddr, ca_pem: &str) -> Option<Self> {
        let mut client = Self::over(TcpStream::connect(address).await.ok()?);
        client.expect(220).await?;
        for (line, code) in [("EHLO client.example\r\n", 250), ("STARTTLS\r\n", 220)] {
            client.try_send(line.as_bytes()).await.ok()?;
            client.expect(code).await?;
        }
        let mut client = client.handshake(ca_pem, None).await.ok()?;
        client.try_send(b"EHLO client.example\r\n").await.ok()?;
        client.expect(250).await?;
        Some(client)
    }

    /// The next reply, if it has this code.
    async fn expect(&mut self, code: u16) -> Option<Reply> {
        self.try_reply().await.filter(|reply| reply.code == code)
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a connected socket");
        Self {
            stream: Box::new(stream),
            unread: Vec::new(),
        }
    }

    /// Connects, and goes through greeting, EHLO, STARTTLS and EHLO.
    pub(crate) async fn encrypted(address: SocketAddr, ca_pem: &str) -> Self {
        let client = Self::connect(address).await;
        client.into_encrypted(ca_pem, None).await
    }

    /// Goes through greeting, EHLO, STARTTLS and EHLO.
    pub(crate) async fn into_encrypted(mut self, ca_pem: &str, identity: Option<&Pair>) -> Self {
        assert_eq!(self.reply().await.code, 220, "the greeting");
        let ehlo = self.command("EHLO client.example").await;
        assert!(ehlo.lines.iter().any(|line| line == "STARTTLS"), "{ehlo:?}");
        assert_eq!(self.command("STARTTLS").await.code, 220);
        let mut client = self
            .handshake(ca_pem, identity)
            .await
            .expect("a TLS session");
        let ehlo = client.command("EHLO client.example").await;
        assert!(
            !ehlo.lines.iter().any(|line| line == "STARTTLS"),
            "{ehlo:?}"
        );
        client
    }

    /// The TLS handshake; the name `localhost` is verified against the authority.
    pub(crate) async fn handshake(
        self,
        ca_pem: &str,
        identity: Option<&Pair>,
    ) -> std::io::Result<Self> {
        self.handshake_with(ca_pem, identity, rustls::ALL_VERSIONS)
            .await
    }

    /// The TLS handshake with one of these protocol versions.
    pub(crate) async fn handshake_with(
        self,
        ca_pem: &str,
        identity: Option<&Pair>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> std::io::Result<Self> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(ca_pem.as_bytes()).expect("PEM");
        roots.add(ca).expect("an authority");
        let builder = ClientConfig::builder_with_provider(certs::provider())
            .with_protocol_versions(versions)
            .expect("protocol versions")
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes());
                let chain = chain.map(|one| one.expect("PEM")).collect();
                let key = PrivateKeyDer::from_pem_slice(pair.private_key.as_bytes());
                builder
                    .with_client_auth_cert(chain, key.expect("PEM"))
                    .expect("a pair")
            }
        };
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = timeout(PATIENCE, connector.connect(name, self.stream))
            .await
            .expect("a handshake in time")?;
        Ok(Self {
            stream: Box::new(stream),
            unread: Vec::new(),
        })
    }

    /// The connection itself, for a handshake of the test's own.
    pub(crate) fn into_stream(self) -> Box<dyn Stream> {
        self.stream
    }

    /// Sends octets as they are.
    pub(crate) async fn send(&mut self, octets: &[u8]) {
        self.try_send(octets).await.expect("the peer reads");
    }

    /// Sends octets as they are, to a peer that may be gone.
    pub(crate) async fn try_send(&mut self, octets: &[u8]) -> std::io::Result<()> {
        let sent = timeout(PATIENCE, async {
            self.stream.write_all(octets).await?;
            self.stream.flush().await
        });
        sent.await.expect("the peer reads in time")
    }

    /// Sends a command line and reads the reply.
    pub(crate) async fn command(&mut self, line: &str) -> Reply {
        self.send(format!("{line}\r\n").as_bytes()).await;
        self.reply().await
    }

    /// Reads one reply.
    pub(crate) async fn reply(&mut self) -> Reply {
        self.try_reply().await.expect("a reply, not the end")
    }

    /// Reads one reply; `None` if the peer has closed instead.
    pub(crate) async fn try_reply(&mut self) -> Option<Reply> {
        let mut lines = Vec::new();
        loop {
            let line = self.line().await?;
            let (code, rest) = line.split_at_checked(3).expect("a reply code");
            let code = code.parse().expect("a reply code");
            lines.push(rest.get(1..).unwrap_or_default().to_owned());
            if !rest.starts_with('-') {
                return Some(Reply { code, lines });
            }
        }
    }

    /// The next line without its CRLF; `None` at the end.
    pub(crate) async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.unread.drain(..end + 2).take(end).collect();
                return Some(String::from_utf8(line).expect("replies are text"));
            }
            if self.fill().await == 0 {
                return None;
            }
        }
    }

    /// Octets read; 0 at the end.
    async fn fill(&mut self) -> usize {
        let mut buffer = [0; 4096];
        let read = timeout(PATIENCE, self.stream.read(&mut buffer));
        // A reset and a close are the same to these tests.
        let octets = read.await.expect("the peer speaks in time").unwrap_or(0);
        self.unread.extend_from_slice(&buffer[..octets]);
        octets
    }

    /// Reads until the peer closes; what came before that.
    pub(crate) async fn rest(&mut self) -> String {
        while self.fill().await > 0 {}
        String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned()
    }

    /// One pipelined transaction with DATA; the reply to the end of data, or the first that refused.
    pub(crate) async fn deliver(&mut self, from: &str, to: &str, content: &str) -> Reply {
        let reply = self.try_deliver(from, to, content).await;
        reply.expect("a reply, not the end")
    }

    /// As [`deliver`](Self::deliver); `None` if the peer has closed instead of an answer.
    pub(crate) async fn try_deliver(
        &mut self,
        from: &str,
        to: &str,
        content: &str,
    ) -> Option<Reply> {
        let commands = format!("MAIL FROM:<{from}>\r\nRCPT TO:<{to}>\r\nDATA\r\n");
        self.try_send(commands.as_bytes()).await.ok()?;
        let mut refused = None;
        for expected in [250, 250, 354] {
            let reply = self.try_reply().await?;
            if reply.code != expected {
                refused.get_or_insert(reply);
            }
        }
        if refused.is_some() {
            return refused;
        }
        self.try_send(stuffed(content).as_bytes()).await.ok()?;
        self.try_reply().await
    }

    /// One transaction with BDAT in chunks of this size; the last reply, or the first that refused.
    pub(crate) async fn deliver_chunked(
        &mut self,
        from: &str,
        to: &str,
        content: &[u8],
        chunk: usize,
    ) -> Reply {
        for command in [format!("MAIL FROM:<{from}>"), format!("RCPT TO:<{to}>")] {
            let reply = self.command(&command).await;
            if reply.code != 250 {
                return reply;
            }
        }
        let chunks: Vec<_> = content.chunks(chunk).collect();
        let mut last = None;
        for (number, octets) in chunks.iter().enumerate() {
            let mark = if number + 1 == chunks.len() {
                " LAST"
            } else {
                ""
            };
            let command = format!("BDAT {}{mark}\r\n", octets.len());
            self.send(command.as_bytes()).await;
            self.send(octets).await;
            let reply = self.reply().await;
            if reply.code != 250 {
                return reply;
            }
            last = Some(reply);
        }
        last.expect("at least one chunk")
    }
}

/// Counts the application data records of TLS (RFC 8446 §5.1) that pass.
struct Records {
    stream: Box<dyn Stream>,
    /// What has come of a record's header: type, version, length.
    header: Vec<u8>,
    /// Octets of the record that are still to come.
    left: usize,
    records: Arc<AtomicUsize>,
}

impl Records {
    fn came(&mut self, mut octets: &[u8]) {
        const APPLICATION_DATA: u8 = 23;
        while let Some((first, rest)) = octets.split_first() {
            if self.left > 0 {
                let passed = self.left.min(octets.len());
                self.left -= passed;
                octets = &octets[passed..];
                continue;
            }
            // Before STARTTLS there are no records.
            if !self.header.is_empty() || (20..=23).contains(first) {
                self.header.push(*first);
            }
            octets = rest;
            if let [kind, _, _, high, low] = self.header[..] {
                let counts = kind == APPLICATION_DATA;
                self.records.fetch_add(counts.into(), Ordering::Relaxed);
                self.left = usize::from(u16::from_be_bytes([high, low]));
                self.header.clear();
            }
        }
    }
}

impl AsyncRead for Records {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.came(&buffer.filled()[before..]);
        read
    }
}

impl AsyncWrite for Records {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, octets)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Content as DATA sends it (RFC 5321 §4.5.2), the final dot included.
pub(crate) fn stuffed(content: &str) -> String {
    let mut text = String::new();
    for line in content.split_inclusive("\r\n") {
        if line.starts_with('.') {
            text.push('.');
        }
        text.push_str(line);
    }
    if !text.is_empty() && !text.ends_with("\r\n") {
        text.push_str("\r\n");
    }
    text + ".\r\n"
}
