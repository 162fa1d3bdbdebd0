//! A driver without a network: the bare session, what it said, and a clock that tests turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clawback::smtp::{
    ContentAnswer, Deferral, Event, Reason, RecipientAnswer, Session, Settings, TlsPolicy,
    Transaction,
};

/// The name in every reply that has one.
pub(crate) const HOSTNAME: &str = "mx.example";

/// The bounds that the configuration has by default.
pub(crate) fn settings() -> Settings {
    Settings {
        hostname: HOSTNAME.to_owned(),
        tls: TlsPolicy::Required,
        max_message: 200 << 20,
        max_recipients: 1000,
        max_errors: 10,
        idle_timeout: Duration::from_secs(300),
        handshake_timeout: Duration::from_secs(30),
    }
}

/// The same without TLS, for tests about something else.
pub(crate) fn clear_settings() -> Settings {
    Settings {
        tls: TlsPolicy::Optional,
        ..settings()
    }
}

/// What a session did, content joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Did {
    Replied(String),
    StartedTls,
    Asked(String),
    Began(Transaction),
    Content(Vec<u8>),
    Ended,
    Aborted,
    Refused(Reason),
    Closed,
}

/// A session and its driver. Questions are answered at once: `journal@` and `other@` are two
/// tenants of ours, `later@` is deferred, nobody else is known.
pub(crate) struct Bare {
    pub(crate) session: Session,
    pub(crate) now: Instant,
    pub(crate) did: Vec<Did>,
    /// The answer to [`Event::Begin`].
    pub(crate) content: ContentAnswer,
    /// The answer to [`Event::End`], if it is not 250.
    pub(crate) deferral: Option<Deferral>,
    /// Whether [`Event::End`] is answered at all.
    pub(crate) answers_end: bool,
    tenant: Option<String>,
}

impl Bare {
    pub(crate) fn new(settings: Settings) -> Self {
        let now = start();
        Self::with(Session::new(Arc::new(settings), now), now)
    }

    pub(crate) fn with(session: Session, now: Instant) -> Self {
        let mut bare = Self {
            session,
            now,
            did: Vec::new(),
            content: ContentAnswer::Accept,
            deferral: None,
            answers_end: true,
            tenant: None,
        };
        bare.poll();
        bare
    }

    /// In a transaction with one recipient.
    pub(crate) fn with_recipient(settings: Settings) -> Self {
        let mut bare = Self::new(settings);
        bare.send("EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<journal@mx.example>\r\n");
        bare.did.clear();
        bare
    }

    pub(crate) fn send(&mut self, octets: impl AsRef<[u8]>) {
        self.session.handle_octets(octets.as_ref(), self.now);
        self.poll();
    }

    /// Reads into the session's own room, as a driver with a socket does.
    pub(crate) fn read(&mut self, mut octets: &[u8]) {
        while !octets.is_empty() {
            let space = self.session.space();
            let read = space.len().min(octets.len());
            space[..read].copy_from_slice(&octets[..read]);
            self.session.handle_read(read, self.now);
            octets = &octets[read..];
            self.poll();
        }
    }

    /// Time passes; time-outs that fall in it come at their time.
    pub(crate) fn elapse(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some(timeout) = self.session.poll_timeout().filter(|at| *at <= until) {
            self.now = timeout;
            self.session.handle_timeout(timeout);
            self.poll();
        }
        self.now = until;
    }

    pub(crate) fn poll(&mut self) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Reply(octets) => {
                    let text = String::from_utf8(octets).expect("replies are ASCII");
                    assert!(text.is_ascii() && text.ends_with("\r\n"), "{text:?}");
                    self.did.push(Did::Replied(text));
                }
                Event::StartTls => self.did.push(Did::StartedTls),
                Event::Recipient {
                    forward_path,
                    accepted,
                } => {
                    let address = forward_path.address().map_or("postmaster", |a| a.as_str());
                    self.did.push(Did::Asked(address.to_owned()));
                    let answer = self.answer(address, accepted);
                    self.session.recipient_answer(answer, self.now);
                }
                Event::Begin(transaction) => {
                    self.did.push(Did::Began(transaction));
                    self.session.content_answer(self.content, self.now);
                }
                Event::Content(octets) => {
                    assert!(!octets.is_empty(), "content is never empty");
                    match self.did.last_mut() {
                        Some(Did::Content(before)) => before.extend_from_slice(octets),
                        _ => self.did.push(Did::Content(octets.to_vec())),
                    }
                }
                Event::End => {
                    self.did.push(Did::Ended);
                    match self.deferral {
                        _ if !self.answers_end => {}
                        None => self.session.message_stored("report recorded", self.now),
                        Some(reason) => self.session.message_deferred(reason, self.now),
                    }
                }
                Event::Abort => self.did.push(Did::Aborted),
                Event::Refused(reason) => self.did.push(Did::Refused(reason)),
                Event::Close => self.did.push(Did::Closed),
            }
        }
    }

    /// All replies so far.
    pub(crate) fn replies(&self) -> String {
        let replied = self.did.iter().map(|did| match did {
            Did::Replied(text) => text.as_str(),
            _ => "",
        });
        replied.collect()
    }

    /// The codes of all replies so far, continuation lines left out.
    pub(crate) fn codes(&self) -> Vec<String> {
        let replies = self.replies();
        let last_lines = replies.lines().filter(|line| line.get(3..4) == Some(" "));
        last_lines.map(|line| line[..3].to_owned()).collect()
    }

    /// All content so far.
    pub(crate) fn content(&self) -> Vec<u8> {
        let content = self.did.iter().map(|did| match did {
            Did::Content(octets) => octets.as_slice(),
            _ => &[],
        });
        content.collect::<Vec<_>>().concat()
    }

    pub(crate) fn has(&self, did: &Did) -> bool {
        self.did.contains(did)
    }

    fn answer(&mut self, address: &str, accepted: usize) -> RecipientAnswer {
        if accepted == 0 {
            self.tenant = None;
        }
        match address {
            tenant @ ("journal@mx.example" | "other@mx.example") => match &self.tenant {
                Some(first) if first != tenant => RecipientAnswer::OtherTenant,
                _ => {
                    self.tenant = Some(tenant.to_owned());
                    RecipientAnswer::Accept
                }
            },
            "later@mx.example" => RecipientAnswer::Defer,
            _ => RecipientAnswer::Unknown,
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "an Instant has no other beginning; tests turn the clock from here on"
)]
fn start() -> Instant {
    Instant::now()
}
