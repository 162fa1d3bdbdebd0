//! One connection: what the peer sends goes into its session, what the session says is done.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::counter;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use super::book::Place as JournalPlace;
use super::content::{Content, Origin, Outcome};
use super::register::{Place, count_connection};
use super::{Settings, Shared, clock};
use crate::mail::ForwardPath;
use crate::smtp::{ContentAnswer, Deferral, Event, RecipientAnswer, Session, Transaction};
use crate::telemetry::metric;

/// How long a peer may take to read what we wrote, at most. Our replies are small: a peer that does
/// not take one in this time does not read at all.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long we listen to a peer after our last word.
const LINGER: Duration = Duration::from_secs(1);

/// Octets that we still take from it.
const LINGER_OCTETS: usize = 256 * 1024;

/// Serves one connection from greeting to close.
pub(super) async fn serve(
    shared: Arc<Shared>,
    settings: Arc<Settings>,
    stream: TcpStream,
    peer: IpAddr,
    place: Place,
) {
    let session = Session::new(Arc::clone(&settings.smtp), clock::now());
    let mut connection = Connection {
        shared,
        settings,
        session,
        place,
        peer,
        names: Vec::new(),
        journal: None,
        content: None,
        talking: false,
    };
    debug!(session = connection.place.number(), %peer, "connected");
    // Boxed: a task keeps its largest state for ever, and most of its life a session is idle.
    Box::pin(connection.run(stream)).await;
    debug!(session = connection.place.number(), %peer, "disconnected");
}

/// A session and what the driver must remember for it.
struct Connection {
    shared: Arc<Shared>,
    settings: Arc<Settings>,
    session: Session,
    place: Place,
    peer: IpAddr,
    /// Names that the peer proved by its certificate.
    names: Vec<String>,
    /// Where the report of the running transaction belongs: known from the first RCPT.
    journal: Option<Arc<JournalPlace>>,
    content: Option<Box<Content>>,
    /// The last thing that happened was that the peer sent something.
    talking: bool,
}

/// Why the conversation on a stream ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    StartTls,
    Closed,
}

impl Connection {
    async fn run(&mut self, mut plain: TcpStream) {
        if self.converse(&mut plain).await == Ended::Closed {
            return self.part(&mut plain).await;
        }
        if let Some(mut encrypted) = self.handshake(plain).await {
            self.session.tls_started(clock::now());
            self.converse(&mut *encrypted).await;
            self.part(&mut *encrypted).await;
        }
    }

    /// Closes in a way that lets our last reply arrive: a socket that is closed while the peer still
    /// sends is reset, and the reset overtakes the reply.
    async fn part<S: AsyncRead + AsyncWrite + Unpin>(&mut self, stream: &mut S) {
        let closing = async {
            stream.shutdown().await?;
            let (mut rest, mut taken) = ([0; 1024], 0);
            while self.talking && taken < LINGER_OCTETS {
                match stream.read(&mut rest).await? {
                    0 => break,
                    octets => taken += octets,
                }
            }
            std::io::Result::Ok(())
        };
        // A peer that is gone need not hear it.
        drop(timeout(LINGER, closing).await);
    }

    /// The TLS handshake; `None` if it failed or took too long.
    async fn handshake(&mut self, plain: TcpStream) -> Option<Box<TlsStream<TcpStream>>> {
        let served = self.shared.tls.served();
        let acceptor = TlsAcceptor::from(Arc::clone(&served.config));
        let deadline = self
            .session
            .poll_timeout()
            .unwrap_or_else(|| clock::now() + self.settings.smtp.handshake_timeout);
        let shaken = tokio::select! {
            shaken = acceptor.accept(plain) => shaken,
            () = sleep_until(deadline.into()) => {
                count_handshake("timeout");
                return None;
            }
            () = self.place.asked_to_go() => {
                count_connection("evicted");
                return None;
            }
            () = self.shared.stop.cancelled() => return None,
        };
        match shaken {
            Ok(stream) => {
                count_handshake(match stream.get_ref().1.protocol_version() {
                    Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1_3",
                    _ => "TLSv1_2",
                });
                self.names = served.proven_names(stream.get_ref().1);
                Some(Box::new(stream))
            }
            Err(error) => {
                count_handshake("failed");
                debug!(session = self.place.number(), peer = %self.peer, error = ?error.to_string(), "TLS handshake failed");
                None
            }
        }
    }

    /// Reads and answers until the session wants TLS or the end.
    async fn converse<S: AsyncRead + AsyncWrite + Unpin>(&mut self, stream: &mut S) -> Ended {
        let stop = self.shared.stop.clone();
        let abort = self.shared.abort.clone();
        let mut stopping = false;
        loop {
            if let Some(ended) = self.carry_out(stream).await {
                return ended;
            }
            self.place.set_busy(self.session.has_recipient());
            let deadline = self.session.poll_timeout();
            self.talking = false;
            tokio::select! {
                read = stream.read(self.session.space()) => match read {
                    Ok(0) | Err(_) => self.session.handle_disconnect(),
                    Ok(octets) => {
                        self.talking = true;
                        self.session.handle_read(octets, clock::now());
                    }
                },
                () = until(deadline) => self.session.handle_timeout(clock::now()),
                () = self.place.asked_to_go() => {
                    if self.session.make_room(clock::now()) {
                        count_connection("evicted");
                    }
                }
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.session.shut_down(clock::now());
                }
                () = abort.cancelled() => return Ended::Closed,
            }
        }
    }

    /// Does what the session wants done; `None` when it wants to hear more.
    async fn carry_out<S: AsyncWrite + Unpin>(&mut self, stream: &mut S) -> Option<Ended> {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Reply(octets) => {
                    debug!(session = self.place.number(), reply = ?code(&octets));
                    if !self.write(stream, &octets).await {
                        self.talking = false;
                        self.session.handle_disconnect();
                    }
                }
                Event::StartTls => return Some(Ended::StartTls),
                Event::Recipient {
                    forward_path,
                    accepted,
                } => {
                    let answer = self.recipient(&forward_path, accepted);
                    self.session.recipient_answer(answer, clock::now());
                }
                Event::Begin(transaction) => {
                    let answer = self.begin(transaction);
                    self.session.content_answer(answer, clock::now());
                }
                Event::Content(octets) => {
                    if let Some(content) = &mut self.content {
                        content.handle_octets(octets).await;
                    }
                }
                Event::End => self.end().await,
                Event::Abort => self.content = None,
                Event::Refused(reason) => {
                    debug!(session = self.place.number(), peer = %self.peer, reason = reason.as_str(), "refused");
                    self.shared.count_refusal(reason);
                }
                Event::Close => return Some(Ended::Closed),
            }
        }
        None
    }

    /// Writes all of it and hands it to the network; `false` if the peer did not take it in time, or
    /// others need the place meanwhile. A peer that does not read holds neither that nor a stop.
    async fn write<S: AsyncWrite + Unpin>(&self, stream: &mut S, octets: &[u8]) -> bool {
        let patience = WRITE_TIMEOUT.min(self.settings.smtp.idle_timeout);
        let written = timeout(patience, async {
            stream.write_all(octets).await?;
            stream.flush().await
        });
        let gives_way = !self.session.has_recipient();
        tokio::select! {
            biased;
            written = written => matches!(written, Ok(Ok(()))),
            () = self.shared.abort.cancelled() => false,
            () = self.place.asked_to_go(), if gives_way => {
                count_connection("evicted");
                false
            }
        }
    }

    /// Whether a message may be for this forward-path.
    fn recipient(&mut self, path: &ForwardPath, accepted: usize) -> RecipientAnswer {
        if accepted == 0 {
            self.journal = None;
        }
        let Some(found) = self.settings.book.find(path) else {
            return RecipientAnswer::Unknown;
        };
        match &self.journal {
            Some(place) if !place.is_with(found) => RecipientAnswer::OtherTenant,
            Some(_) => RecipientAnswer::Accept,
            None => {
                self.journal = Some(Arc::clone(found));
                RecipientAnswer::Accept
            }
        }
    }

    /// Whether the content may come now.
    fn begin(&mut self, transaction: Transaction) -> ContentAnswer {
        let Some(place) = self.journal.take() else {
            // The session asks only after an accepted RCPT.
            return ContentAnswer::Defer(Deferral::Internal);
        };
        let origin = Origin {
            listed: place.admits(self.peer, &self.names),
            place,
            session: self.place.number(),
            peer: self.peer,
            names: self.names.clone(),
            reverse_path: transaction.reverse_path,
        };
        match Content::begin(Arc::clone(&self.shared), &self.settings, origin) {
            Ok(content) => {
                self.content = Some(Box::new(content));
                ContentAnswer::Accept
            }
            Err(deferral) => ContentAnswer::Defer(deferral),
        }
    }

    /// The message is whole: keep it, then answer.
    async fn end(&mut self) {
        let outcome = match self.content.take() {
            Some(content) => Box::pin(content.finish()).await,
            None => Outcome::Deferred(Deferral::Internal),
        };
        match outcome {
            Outcome::Kept(text) => self.session.message_stored(&text, clock::now()),
            Outcome::Deferred(reason) => self.session.message_deferred(reason, clock::now()),
        }
    }
}

/// Waits for a time; for ever if there is none.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// The reply codes of a group of replies, for the log.
fn code(octets: &[u8]) -> String {
    let lines = octets.split(|octet| *octet == b'\n');
    let codes: Vec<_> = lines
        .filter(|line| line.get(3) == Some(&b' '))
        .filter_map(|line| std::str::from_utf8(line.get(..3)?).ok())
        .collect();
    codes.join(" ")
}

/// Counts a handshake by its result.
fn count_handshake(result: &'static str) {
    counter!(metric::TLS_HANDSHAKES_TOTAL, "result" => result).increment(1);
}
