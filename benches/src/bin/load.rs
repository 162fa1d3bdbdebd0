//! SMTP load: journal reports over STARTTLS, pipelined DATA, one thread pool, latency of every 250.
//!
//! `load addr=127.0.0.1:2525 connections=16 messages=10000 size=8k|100k|mix|feed [tls=CA.pem|off]`
//! `     [from=A|null] [to=ADDRESS] [rate=REPORTS_PER_SECOND] [seed=N] [per-session=1000] [pipeline=on|off]`
//!
//! Prints one JSON object: messages, seconds, per second, octets, percentiles of the time from the last
//! octet of the content to its 250, refused replies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clawback_benches::report::{Generator, Size};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::TcpStream;

#[derive(Clone)]
struct Options {
    addr: String,
    connections: u64,
    messages: u64,
    size: Size,
    tls: Option<Arc<rustls::ClientConfig>>,
    from: String,
    to: String,
    rate: Option<f64>,
    seed: u64,
    per_session: u64,
    pipeline: bool,
}

fn options() -> Options {
    let mut options = Options {
        addr: "127.0.0.1:2525".into(),
        connections: 16,
        messages: 10_000,
        size: Size::Fixed(8 << 10),
        tls: None,
        from: String::new(),
        to: "k3v9q2x7w5m8p4t6@journal.example.test".into(),
        rate: None,
        seed: 1,
        per_session: 1000,
        pipeline: true,
    };
    for argument in std::env::args().skip(1) {
        let (key, value) = argument.split_once('=').expect("key=value");
        match key {
            "addr" => options.addr = value.into(),
            "connections" => options.connections = value.parse().unwrap(),
            "messages" => options.messages = value.parse().unwrap(),
            "size" => options.size = Size::parse(value),
            "tls" if value == "off" => {}
            "tls" => {
                let mut roots = rustls::RootCertStore::empty();
                for certificate in CertificateDer::pem_file_iter(value).unwrap() {
                    roots.add(certificate.unwrap()).unwrap();
                }
                let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
                options.tls = Some(Arc::new(
                    rustls::ClientConfig::builder_with_provider(provider)
                        .with_safe_default_protocol_versions()
                        .unwrap()
                        .with_root_certificates(roots)
                        .with_no_client_auth(),
                ));
            }
            "from" => {
                options.from = if value == "null" {
                    String::new()
                } else {
                    value.into()
                }
            }
            "to" => options.to = value.into(),
            "rate" => options.rate = Some(value.parse().unwrap()),
            "seed" => options.seed = value.parse().unwrap(),
            "pipeline" => options.pipeline = value == "on",
            "per-session" => options.per_session = value.parse().unwrap(),
            other => panic!("unknown option {other}"),
        }
    }
    options
}

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

struct Client {
    wire: Box<dyn Wire>,
    buffer: Vec<u8>,
}

impl Client {
    /// The next whole reply; its code.
    async fn reply(&mut self) -> std::io::Result<u16> {
        loop {
            let mut start = 0;
            while let Some(end) = memchr::memchr(b'\n', &self.buffer[start..]) {
                let line = &self.buffer[start..start + end + 1];
                if line.len() >= 4 && line[3] == b' ' {
                    let code = std::str::from_utf8(&line[..3]).unwrap().parse().unwrap();
                    self.buffer.drain(..start + end + 1);
                    return Ok(code);
                }
                start += end + 1;
            }
            if self.wire.read_buf(&mut self.buffer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn command(&mut self, line: &str) -> std::io::Result<u16> {
        self.wire.write_all(line.as_bytes()).await?;
        self.wire.flush().await?;
        self.reply().await
    }

    async fn open(options: &Options) -> std::io::Result<Self> {
        let stream = TcpStream::connect(&options.addr).await?;
        stream.set_nodelay(true)?;
        let mut client = Self {
            wire: Box::new(stream),
            buffer: Vec::with_capacity(1024),
        };
        assert_eq!(client.reply().await?, 220);
        assert_eq!(client.command("EHLO load.example.test\r\n").await?, 250);
        if let Some(tls) = &options.tls {
            assert_eq!(client.command("STARTTLS\r\n").await?, 220);
            let name = ServerName::try_from("localhost").unwrap();
            let stream = tokio_rustls::TlsConnector::from(tls.clone())
                .connect(name, client.wire)
                .await?;
            client = Self {
                wire: Box::new(stream),
                buffer: Vec::with_capacity(1024),
            };
            assert_eq!(client.command("EHLO load.example.test\r\n").await?, 250);
        }
        Ok(client)
    }

    async fn send(
        &mut self,
        options: &Options,
        content: &[u8],
        generator: &Generator,
    ) -> std::io::Result<(u16, Duration)> {
        let commands = [
            format!("MAIL FROM:<{}>\r\n", options.from),
            format!("RCPT TO:<{}>\r\n", options.to),
            "DATA\r\n".to_owned(),
        ];
        if options.pipeline {
            self.wire.write_all(commands.concat().as_bytes()).await?;
            self.wire.flush().await?;
        }
        for (command, expected) in commands.iter().zip([250, 250, 354]) {
            let code = if options.pipeline {
                self.reply().await?
            } else {
                self.command(command).await?
            };
            if code != expected {
                return Ok((code, Duration::ZERO));
            }
        }
        let (head, tail) = content.split_at(generator.splice.map_or(0, |(at, _)| at));
        self.wire.write_all(head).await?;
        for _ in 0..generator.splice.map_or(0, |(_, times)| times) {
            self.wire.write_all(generator.filler()).await?;
        }
        self.wire.write_all(tail).await?;
        self.wire.flush().await?;
        let sent = Instant::now();
        let code = self.reply().await?;
        Ok((code, sent.elapsed()))
    }
}

async fn connection(
    number: u64,
    options: Options,
    next: Arc<AtomicU64>,
    started: Instant,
) -> (Vec<u32>, u64, u64) {
    let mut generator = Generator::new(
        options.seed.wrapping_mul(1_000_003).wrapping_add(number),
        options.size,
    );
    let (mut latencies, mut refused, mut octets) = (Vec::new(), 0, 0);
    let mut client: Option<Client> = None;
    let mut in_session = 0;
    let mut content = Vec::new();
    loop {
        let turn = next.fetch_add(1, Ordering::Relaxed);
        if turn >= options.messages {
            break;
        }
        generator.next_into(&mut content);
        if let Some(rate) = options.rate {
            let due = started + Duration::from_secs_f64(turn as f64 / rate);
            until(due).await;
        }
        loop {
            if client.is_none() {
                client = Client::open(&options).await.ok();
                in_session = 0;
            }
            let Some(open) = &mut client else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            match open.send(&options, &content, &generator).await {
                Ok((250, latency)) => {
                    latencies.push(latency.as_micros().min(u128::from(u32::MAX)) as u32);
                    octets += (content.len()
                        + generator
                            .splice
                            .map_or(0, |(_, times)| times * generator.filler().len()))
                        as u64;
                    break;
                }
                Ok((code, _)) if (400..500).contains(&code) => {
                    refused += 1;
                    client = None;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Ok((code, _)) => panic!("reply {code}"),
                Err(_) => client = None,
            }
        }
        in_session += 1;
        if in_session >= options.per_session {
            if let Some(mut open) = client.take() {
                let _ = open.command("QUIT\r\n").await;
            }
        }
    }
    if let Some(mut open) = client.take() {
        let _ = open.command("QUIT\r\n").await;
    }
    (latencies, refused, octets)
}

/// Waits for a moment, to some microseconds: tokio's own timers know whole milliseconds only, and everything that
/// falls due within one would be sent at once.
async fn until(due: Instant) {
    let wait = due.saturating_duration_since(Instant::now());
    if wait.is_zero() {
        return;
    }
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let timer = timerfd_create(TimerfdClockId::Monotonic, flags).unwrap();
    let spec = |seconds, nanoseconds| Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let value = Itimerspec {
        it_interval: spec(0, 0),
        it_value: spec(wait.as_secs() as i64, wait.subsec_nanos().into()),
    };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &value).unwrap();
    #[expect(deprecated, reason = "its successor is unsafe; the timer is owned, so it stays open")]
    let timer = AsyncFd::with_interest(timer, Interest::READABLE).unwrap();
    drop(timer.readable().await.unwrap());
}

fn main() {
    let options = options();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let next = Arc::new(AtomicU64::new(0));
        let started = Instant::now();
        let mut tasks = Vec::new();
        for number in 0..options.connections {
            tasks.push(tokio::spawn(connection(number, options.clone(), next.clone(), started)));
        }
        let (mut latencies, mut refused, mut octets) = (Vec::new(), 0, 0);
        for task in tasks {
            let (mut some, r, o) = task.await.unwrap();
            latencies.append(&mut some);
            refused += r;
            octets += o;
        }
        let seconds = started.elapsed().as_secs_f64();
        latencies.sort_unstable();
        let percentile = |p: f64| latencies.get(((latencies.len() as f64 * p) as usize).min(latencies.len().saturating_sub(1))).copied().unwrap_or(0);
        println!(
            "{{\"messages\":{},\"seconds\":{seconds:.3},\"per_second\":{:.0},\"octets\":{octets},\"p50_us\":{},\"p99_us\":{},\"max_us\":{},\"refused\":{refused}}}",
            latencies.len(),
            latencies.len() as f64 / seconds,
            percentile(0.5),
            percentile(0.99),
            latencies.last().copied().unwrap_or(0),
        );
    });
}
