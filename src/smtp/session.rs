//! The state machine of a session: who may say what when, and what is answered.

use std::sync::Arc;
use std::time::Instant;

use super::{ContentAnswer, Deferral, Event, RecipientAnswer, Refusal, Settings};

/// The server's side of one connection.
///
/// A driver turns like this:
///
/// ```text
/// loop {
///     while let Some(event) = session.poll_event() { carry it out, answer it }   // Close: return
///     select! {
///         n = read(session.space())          => n == 0 ? session.handle_disconnect() : session.handle_read(n, now),
///         () = sleep_until(session.poll_timeout()) => session.handle_timeout(now),
///         () = shutdown                      => session.shut_down(now),
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Session {
    settings: Arc<Settings>,
    last_activity: Instant,
}

impl Session {
    /// A session with a peer that has just connected; the greeting (220) is its first
    /// [`Event::Reply`].
    pub fn new(settings: Arc<Settings>, now: Instant) -> Self {
        Self {
            settings,
            last_activity: now,
        }
    }

    /// A session that only says 421 and closes.
    pub fn refuse(_settings: Arc<Settings>, _why: Refusal, _now: Instant) -> Self {
        unimplemented!()
    }

    /// Room for what comes next: read into it, then call [`handle_read`](Self::handle_read).
    ///
    /// Never empty: a few KiB between messages, some tens of KiB within one.
    pub fn space(&mut self) -> &mut [u8] {
        unimplemented!()
    }

    /// The first `octets` octets of [`space`](Self::space) are from the peer. Poll events until
    /// `None` before reading more, so that what waits here stays bounded.
    pub fn handle_read(&mut self, _octets: usize, _now: Instant) {
        unimplemented!()
    }

    /// Octets arrived; all of them are taken. The same as [`space`](Self::space) and
    /// [`handle_read`](Self::handle_read), for one copy.
    pub fn handle_octets(&mut self, _octets: &[u8], _now: Instant) {
        unimplemented!()
    }

    /// The peer has closed or is gone: [`Event::Abort`] if a message was under way, then
    /// [`Event::Close`].
    pub fn handle_disconnect(&mut self) {
        unimplemented!()
    }

    /// The time given by [`poll_timeout`](Self::poll_timeout) has come.
    pub fn handle_timeout(&mut self, _now: Instant) {
        unimplemented!()
    }

    /// The TLS handshake is done: all that the peer said before is forgotten (RFC 3207 §4.2).
    pub fn tls_started(&mut self, _now: Instant) {
        unimplemented!()
    }

    /// Answers [`Event::Recipient`].
    pub fn recipient_answer(&mut self, _answer: RecipientAnswer, _now: Instant) {
        unimplemented!()
    }

    /// Answers [`Event::Begin`].
    pub fn content_answer(&mut self, _answer: ContentAnswer, _now: Instant) {
        unimplemented!()
    }

    /// Answers [`Event::End`]: the message is on stable storage. 250 2.0.0 and `text`, of which only
    /// printable ASCII is sent.
    pub fn message_stored(&mut self, _text: &str, _now: Instant) {
        unimplemented!()
    }

    /// Answers [`Event::End`]: the message is not kept, the peer should try again.
    pub fn message_deferred(&mut self, _reason: Deferral, _now: Instant) {
        unimplemented!()
    }

    /// The service stops: 421 4.3.2 now, or after the reply that ends the running transaction.
    pub fn shut_down(&mut self, _now: Instant) {
        unimplemented!()
    }

    /// Others need the place: 421 now, and `true`, if no transaction is running and no TLS
    /// handshake; else nothing happens.
    pub fn make_room(&mut self, _now: Instant) -> bool {
        unimplemented!()
    }

    /// The next thing for the driver to do; call until `None`.
    pub fn poll_event(&mut self) -> Option<Event<'_>> {
        unimplemented!()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) if nothing arrives before. `None` while
    /// the driver is being waited for, and after the end.
    pub fn poll_timeout(&self) -> Option<Instant> {
        unimplemented!()
    }

    /// Whether MAIL was accepted and the message not yet answered, or dropped.
    pub fn in_transaction(&self) -> bool {
        unimplemented!()
    }

    /// Whether TLS has started.
    pub fn is_encrypted(&self) -> bool {
        unimplemented!()
    }

    /// When the peer last completed a command, or sent content.
    pub fn last_activity(&self) -> Instant {
        self.last_activity
    }

    /// Octets of memory that the session's buffers hold.
    pub fn memory(&self) -> usize {
        self.settings.hostname.capacity()
    }
}
