//! The yardstick: the least that an honest receiver does. STARTTLS, content to a file, one `fdatasync` for
//! every session that waits, 250. No journal parsing, no index. `sink ADDR FILE CERT KEY`

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

type Job = (Vec<u8>, oneshot::Sender<()>);

fn committer(mut file: File, mut jobs: mpsc::Receiver<Job>) {
    while let Some(first) = jobs.blocking_recv() {
        let mut group = vec![first];
        while group.len() < 1024 {
            match jobs.try_recv() {
                Ok(job) => group.push(job),
                Err(_) => break,
            }
        }
        for (content, _) in &group {
            file.write_all(content).unwrap();
        }
        file.sync_data().unwrap();
        for (_, done) in group {
            let _ = done.send(());
        }
    }
}

async fn line<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
) -> std::io::Result<Vec<u8>> {
    loop {
        if let Some(end) = memchr::memmem::find(buffer, b"\r\n") {
            let line = buffer[..end].to_ascii_uppercase();
            buffer.drain(..end + 2);
            return Ok(line);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// True when STARTTLS was asked for.
async fn session<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    tls: bool,
    jobs: &mpsc::Sender<Job>,
) -> std::io::Result<bool> {
    let mut buffer = Vec::with_capacity(16 << 10);
    loop {
        let command = line(stream, &mut buffer).await?;
        let reply: &[u8] = match command.get(..4).unwrap_or_default() {
            b"EHLO" if tls => b"250-sink\r\n250 PIPELINING\r\n",
            b"EHLO" => b"250-sink\r\n250-PIPELINING\r\n250 STARTTLS\r\n",
            b"STAR" => {
                stream.write_all(b"220 go\r\n").await?;
                return Ok(true);
            }
            b"QUIT" => {
                stream.write_all(b"221 bye\r\n").await?;
                return Ok(false);
            }
            b"DATA" => {
                stream.write_all(b"354 go\r\n").await?;
                stream.flush().await?;
                let mut content = std::mem::take(&mut buffer);
                let mut from = 0;
                let end = loop {
                    if let Some(at) = memchr::memmem::find(&content[from..], b"\r\n.\r\n") {
                        break from + at;
                    }
                    from = content.len().saturating_sub(4);
                    if stream.read_buf(&mut content).await? == 0 {
                        return Err(std::io::ErrorKind::UnexpectedEof.into());
                    }
                };
                buffer = content.split_off(end + 5);
                let (done, wait) = oneshot::channel();
                jobs.send((content, done))
                    .await
                    .map_err(|_| std::io::ErrorKind::Other)?;
                wait.await.map_err(|_| std::io::ErrorKind::Other)?;
                b"250 kept\r\n"
            }
            _ => b"250 ok\r\n",
        };
        stream.write_all(reply).await?;
        stream.flush().await?;
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = CertificateDer::pem_file_iter(&arguments[3])
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let key = PrivateKeyDer::from_pem_file(&arguments[4]).unwrap();
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let (jobs, queue) = mpsc::channel(4096);
    let file = File::create(&arguments[2]).unwrap();
    std::thread::spawn(move || committer(file, queue));
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            let listener = TcpListener::bind(&arguments[1]).await.unwrap();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (acceptor, jobs) = (acceptor.clone(), jobs.clone());
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    stream.write_all(b"220 sink\r\n").await?;
                    if session(&mut stream, false, &jobs).await? {
                        let mut stream = acceptor.accept(stream).await?;
                        session(&mut stream, true, &jobs).await?;
                    }
                    Ok::<(), std::io::Error>(())
                });
            }
        });
}
