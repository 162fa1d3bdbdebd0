//! A smart host of few words: it takes what it is told to take and remembers it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use clawback_tenant::Authority;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// What the host saw and what it is to answer.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Messages with their reverse-path.
    pub(crate) messages: Vec<(String, Vec<u8>)>,
    /// Command lines inside TLS.
    pub(crate) commands: Vec<String>,
    /// Answers to the ends of the next messages, instead of 250; an empty one closes the connection.
    pub(crate) answers: VecDeque<&'static str>,
    /// Answers to the next RCPTs.
    pub(crate) recipients: VecDeque<&'static str>,
}

/// A running host.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) addr: SocketAddr,
    pub(crate) ca_pem: String,
    pub(crate) seen: Arc<Mutex<Seen>>,
}

impl Host {
    /// Starts one that announces these extensions after STARTTLS.
    pub(crate) async fn start(extensions: &'static [&'static str]) -> Self {
        let authority = Authority::new().unwrap();
        let leaf = authority.leaf(&["localhost"]).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(leaf.pem.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).unwrap(),
            )
            .unwrap();
        let tls = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = Self {
            addr: listener.local_addr().unwrap(),
            ca_pem: authority.pem().to_owned(),
            seen: Arc::default(),
        };
        let seen = Arc::clone(&host.seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, seen) = (tls.clone(), Arc::clone(&seen));
                tokio::spawn(async move { session(stream, tls, &seen, extensions).await });
            }
        });
        host
    }

    pub(crate) fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().unwrap())
    }
}

async fn session(
    mut stream: TcpStream,
    tls: TlsAcceptor,
    seen: &Mutex<Seen>,
    extensions: &[&str],
) -> Option<()> {
    stream.write_all(b"220 host\r\n").await.ok()?;
    let mut plain = BufStream::new(stream);
    command(&mut plain).await?;
    answer(&mut plain, "250-host\r\n250 STARTTLS").await?;
    assert_eq!(command(&mut plain).await?, "STARTTLS");
    answer(&mut plain, "220 go").await?;
    let mut secure = BufStream::new(tls.accept(plain.into_inner()).await.ok()?);
    let mut reverse_path = String::new();
    let mut content = Vec::new();
    loop {
        let line = command(&mut secure).await?;
        seen.lock().unwrap().commands.push(line.clone());
        let verb = line
            .split([' ', ':'])
            .next()
            .unwrap_or_default()
            .to_uppercase();
        match verb.as_str() {
            "EHLO" => answer(&mut secure, &hello(extensions)).await?,
            "MAIL" => {
                reverse_path = line.split(['<', '>']).nth(1).unwrap().to_owned();
                content.clear();
                answer(&mut secure, "250 2.1.0 ok").await?;
            }
            "RCPT" => {
                let reply = seen
                    .lock()
                    .unwrap()
                    .recipients
                    .pop_front()
                    .unwrap_or("250 2.1.5 ok");
                answer(&mut secure, reply).await?;
            }
            "DATA" => {
                answer(&mut secure, "354 go on").await?;
                content = data(&mut secure).await?;
                end(&mut secure, seen, &reverse_path, &mut content).await?;
            }
            "BDAT" => {
                let mut words = line.split(' ').skip(1);
                let mut chunk = vec![0; words.next().unwrap().parse().unwrap()];
                secure.read_exact(&mut chunk).await.ok()?;
                content.extend_from_slice(&chunk);
                match words.next() {
                    Some("LAST") => end(&mut secure, seen, &reverse_path, &mut content).await?,
                    _ => answer(&mut secure, "250 2.0.0 chunk").await?,
                }
            }
            "QUIT" => return answer(&mut secure, "221 bye").await,
            _ => answer(&mut secure, "250 2.0.0 ok").await?,
        }
    }
}

fn hello(extensions: &[&str]) -> String {
    let mut lines = vec!["host"];
    lines.extend(extensions);
    let last = lines.len() - 1;
    let written = lines
        .iter()
        .enumerate()
        .map(|(at, line)| format!("250{}{line}", if at == last { " " } else { "-" }));
    written.collect::<Vec<_>>().join("\r\n")
}

/// The end of a message: kept and 250, or what was asked for.
async fn end(
    wire: &mut (impl AsyncWrite + Unpin),
    seen: &Mutex<Seen>,
    reverse_path: &str,
    content: &mut Vec<u8>,
) -> Option<()> {
    let reply = seen.lock().unwrap().answers.pop_front();
    if let Some(reply) = reply {
        return if reply.is_empty() {
            None
        } else {
            answer(wire, reply).await
        };
    }
    seen.lock()
        .unwrap()
        .messages
        .push((reverse_path.to_owned(), std::mem::take(content)));
    answer(wire, "250 2.0.0 kept").await
}

async fn command(wire: &mut (impl AsyncBufReadExt + AsyncRead + Unpin)) -> Option<String> {
    let mut line = String::new();
    (wire.read_line(&mut line).await.ok()? > 0).then(|| line.trim_end().to_owned())
}

async fn answer(wire: &mut (impl AsyncWrite + Unpin), reply: &str) -> Option<()> {
    wire.write_all(format!("{reply}\r\n").as_bytes())
        .await
        .ok()?;
    wire.flush().await.ok()
}

/// Content up to the lone dot, dots undone.
async fn data(wire: &mut (impl AsyncBufReadExt + Unpin)) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let mut line = Vec::new();
        wire.read_until(b'\n', &mut line).await.ok()?;
        if line == b".\r\n" {
            return Some(content);
        }
        content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}
