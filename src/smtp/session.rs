//! The state machine of a session: who may say what when, and what is answered.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::command::{Arguments, Chunk, Command, Mail, Rcpt, Verb};
use super::data::{Dots, Piece};
use super::input::Input;
use super::line::{Cut, Lines};
use super::reply::{self, Reply};
use super::times::Times;
use super::{
    ContentAnswer, Deferral, Event, Reason, RecipientAnswer, Refusal, Settings, TlsPolicy,
    Transaction,
};
use crate::mail::ForwardPath;

/// Octets of replies that may gather before they are handed out although more commands wait.
const REPLIES_OCTETS: usize = 8 * 1024;

/// The server's side of one connection.
///
/// A driver turns like this:
///
/// ```text
/// loop {
///     while let Some(event) = session.poll_event() { carry it out, answer it }   // Close: return
///     select! {
///         n = read(session.space()) => if n == 0 { session.handle_disconnect() } else { session.handle_read(n, now) },
///         () = sleep_until(session.poll_timeout()) => session.handle_timeout(now),
///         () = shutdown => session.shut_down(now),
///     }
/// }
/// ```
///
/// Writing is the driver's: it bounds how long a peer may leave replies unread.
#[derive(Debug)]
pub struct Session {
    settings: Arc<Settings>,
    input: Input,
    lines: Lines,
    state: State,
    /// EHLO or HELO was accepted since the connection or TLS began.
    greeted: bool,
    encrypted: bool,
    transaction: Option<Running>,
    errors: usize,
    stopping: bool,
    events: VecDeque<Queued>,
    /// Replies that were not handed out yet.
    replies: Vec<u8>,
    times: Times,
}

/// What the session does with the next octets.
#[derive(Debug)]
enum State {
    /// Reads command lines.
    Commands,
    /// Waits for the answer to [`Event::Recipient`].
    Recipient,
    /// Waits for the answer to [`Event::Begin`]; then content comes in this frame.
    Begin(Frame),
    /// Reads content, or drops it if it is refused.
    Content {
        frame: Frame,
        refused: Option<&'static Reply>,
    },
    /// Waits for the answer to [`Event::End`].
    End,
    /// Waits for the TLS handshake.
    Handshake,
    /// Closes as soon as everything is handed out.
    Closing,
    /// Has handed out [`Event::Close`].
    Closed,
}

/// How the end of content is found.
#[derive(Debug, Clone, Copy)]
enum Frame {
    /// After DATA, by CRLF.CRLF.
    Dots(Dots),
    /// After BDAT, by counting down.
    Chunk(Chunk),
}

/// A mail transaction, from MAIL to the reply that ends it (RFC 5321 §3.3).
#[derive(Debug)]
struct Running {
    mail: Mail,
    /// RCPT commands that were accepted.
    recipients: usize,
    /// A RCPT command was answered 4xx.
    deferred: bool,
    /// The driver has accepted content: it is owed `End` or `Abort`.
    begun: bool,
    /// Octets of content.
    octets: u64,
}

/// An [`Event`] in waiting; content is named by its place.
#[derive(Debug)]
enum Queued {
    Reply(Vec<u8>),
    StartTls,
    Recipient(ForwardPath, usize),
    Begin(Transaction),
    /// So many octets before the first pending one.
    Content(usize),
    /// A CR that came before an octet which shows that it is content.
    HeldCr,
    End,
    Abort,
    Refused(Reason),
}

impl Session {
    /// A session with a peer that has just connected; the greeting (220) is its first
    /// [`Event::Reply`].
    pub fn new(settings: Arc<Settings>, now: Instant) -> Self {
        let mut session = Self::silent(settings, now);
        session.reply(&reply::GREETING);
        session
    }

    /// A session that only says 421 and closes.
    pub fn refuse(settings: Arc<Settings>, why: Refusal, now: Instant) -> Self {
        let mut session = Self::silent(settings, now);
        session.close_with(why.reply());
        session
    }

    /// Room for what comes next: read into it, then call [`handle_read`](Self::handle_read).
    ///
    /// Never empty: a few KiB between messages, some tens of KiB within one.
    pub fn space(&mut self) -> &mut [u8] {
        let content = matches!(self.state, State::Content { .. });
        self.input.space(content)
    }

    /// The first `octets` octets of [`space`](Self::space) are from the peer. Poll events until
    /// `None` before reading more, so that what waits here stays bounded.
    pub fn handle_read(&mut self, octets: usize, now: Instant) {
        self.times.set(now);
        self.input.filled(octets);
        self.discard_if_over();
    }

    /// Octets arrived; all of them are taken. The same as [`space`](Self::space) and
    /// [`handle_read`](Self::handle_read), for one copy.
    pub fn handle_octets(&mut self, octets: &[u8], now: Instant) {
        self.times.set(now);
        self.input.extend(octets);
        self.discard_if_over();
    }

    /// The peer has closed or is gone: [`Event::Abort`] if a message was under way, then
    /// [`Event::Close`].
    pub fn handle_disconnect(&mut self) {
        self.replies.clear();
        self.close();
    }

    /// The time given by [`poll_timeout`](Self::poll_timeout) has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.times.set(now);
        if self.poll_timeout().is_none_or(|timeout| now < timeout) {
            return;
        }
        if matches!(self.state, State::Handshake) {
            // Whatever we said in clear text would be read as part of the handshake.
            self.events.push_back(Queued::Refused(Reason::Timeout));
            self.close();
        } else {
            self.close_with(&reply::TIMEOUT);
        }
    }

    /// The TLS handshake is done: all that the peer said before is forgotten (RFC 3207 §4.2).
    pub fn tls_started(&mut self, now: Instant) {
        self.times.set(now);
        if matches!(self.state, State::Handshake) {
            self.encrypted = true;
            self.greeted = false;
            self.listen();
        }
    }

    /// Answers [`Event::Recipient`].
    pub fn recipient_answer(&mut self, answer: RecipientAnswer, now: Instant) {
        self.times.set(now);
        let (State::Recipient, Some(transaction)) = (&self.state, &mut self.transaction) else {
            return;
        };
        let reply = match answer {
            RecipientAnswer::Accept => {
                transaction.recipients += 1;
                &reply::RCPT
            }
            RecipientAnswer::Unknown => &reply::UNKNOWN_RECIPIENT,
            RecipientAnswer::OtherTenant => {
                transaction.deferred = true;
                &reply::OTHER_TENANT
            }
            RecipientAnswer::Defer => {
                transaction.deferred = true;
                &reply::RECIPIENT_DEFERRED
            }
        };
        self.listen();
        self.reply(reply);
    }

    /// Answers [`Event::Begin`].
    pub fn content_answer(&mut self, answer: ContentAnswer, now: Instant) {
        self.times.set(now);
        let State::Begin(frame) = self.state else {
            return;
        };
        match (answer, frame) {
            (ContentAnswer::Accept, _) => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.begun = true;
                }
                if matches!(frame, Frame::Dots(_)) {
                    self.reply(&reply::DATA);
                }
                self.read_content(frame, None);
            }
            (ContentAnswer::Defer(reason), Frame::Dots(_)) => {
                self.transaction = None;
                self.listen();
                self.reply(reason.reply());
            }
            (ContentAnswer::Defer(reason), Frame::Chunk(_)) => {
                self.transaction = None;
                self.read_content(frame, Some(reason.reply()));
            }
        }
    }

    /// Answers [`Event::End`]: the message is on stable storage. 250 2.0.0 and `text`, of which only
    /// printable ASCII is sent.
    pub fn message_stored(&mut self, text: &str, now: Instant) {
        if self.end_message(now) {
            reply::write_stored(text, &mut self.replies);
        }
    }

    /// Answers [`Event::End`]: the message is not kept, the peer should try again.
    pub fn message_deferred(&mut self, reason: Deferral, now: Instant) {
        if self.end_message(now) {
            self.reply(reason.reply());
        }
    }

    /// The service stops: 421 4.3.2 now, or after the reply that ends the running transaction.
    pub fn shut_down(&mut self, now: Instant) {
        self.times.set(now);
        self.stopping = true;
    }

    /// Others need the place: 421 now, and `true`, unless a recipient was accepted
    /// ([`has_recipient`](Self::has_recipient)), TLS is being started, or the session is over; then
    /// nothing happens.
    pub fn make_room(&mut self, now: Instant) -> bool {
        self.times.set(now);
        let listens = matches!(
            self.state,
            State::Commands
                | State::Content {
                    refused: Some(_),
                    ..
                }
        );
        let idle = listens && !self.has_recipient();
        if idle {
            self.close_with(Refusal::TooManyConnections.reply());
        }
        idle
    }

    /// The next thing for the driver to do; call until `None`.
    pub fn poll_event(&mut self) -> Option<Event<'_>> {
        let queued = loop {
            if let Some(queued) = self.events.pop_front() {
                break queued;
            }
            if self.replies.len() < REPLIES_OCTETS && self.step() {
                continue;
            }
            return self.outgoing();
        };
        Some(match queued {
            Queued::Reply(octets) => Event::Reply(octets),
            Queued::StartTls => Event::StartTls,
            Queued::Recipient(forward_path, accepted) => Event::Recipient {
                forward_path,
                accepted,
            },
            Queued::Begin(transaction) => Event::Begin(transaction),
            Queued::Content(octets) => Event::Content(self.input.consumed(octets)),
            Queued::HeldCr => Event::Content(b"\r"),
            Queued::End => Event::End,
            Queued::Abort => Event::Abort,
            Queued::Refused(reason) => Event::Refused(reason),
        })
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) if nothing arrives before. `None` while
    /// the driver is being waited for, and after the end.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let (times, settings) = (&self.times, &self.settings);
        match self.state {
            State::Commands => Some(times.command_timeout(settings.idle_timeout)),
            State::Content { .. } => Some(times.content_timeout(settings.idle_timeout)),
            State::Handshake => Some(times.handshake_timeout(settings.handshake_timeout)),
            State::Recipient | State::Begin(_) | State::End | State::Closing | State::Closed => {
                None
            }
        }
    }

    /// Whether a recipient was accepted and the message not yet answered, or dropped. MAIL alone
    /// says nothing about a peer; a recipient is what only those know whom we wait for.
    pub fn has_recipient(&self) -> bool {
        let running = self.transaction.as_ref();
        running.is_some_and(|running| running.recipients > 0)
    }

    /// Whether TLS has started.
    pub const fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// When the peer last completed a command, or sent content.
    pub const fn last_activity(&self) -> Instant {
        self.times.activity()
    }

    /// Octets of memory that the session's buffers hold.
    pub fn memory(&self) -> usize {
        self.input.memory() + self.replies.capacity()
    }

    fn silent(settings: Arc<Settings>, now: Instant) -> Self {
        Self {
            settings,
            input: Input::default(),
            lines: Lines::default(),
            state: State::Commands,
            greeted: false,
            encrypted: false,
            transaction: None,
            errors: 0,
            stopping: false,
            events: VecDeque::new(),
            replies: Vec::new(),
            times: Times::new(now),
        }
    }

    /// Goes on as far as the next event or reply; `false` if it needs octets or an answer.
    fn step(&mut self) -> bool {
        match self.state {
            State::Commands if self.stopping && self.transaction.is_none() => {
                self.close_with(Refusal::ShuttingDown.reply());
                true
            }
            State::Commands => self.read_command(),
            State::Content { frame, refused } => self.take_content(frame, refused),
            // A client waits for the handshake (RFC 3207 §4); what came in clear text meanwhile
            // must not be taken for something that was said under TLS.
            State::Handshake if self.stopping || !self.input.pending().is_empty() => {
                self.close();
                true
            }
            _ => false,
        }
    }

    /// What is to be handed out when nothing else goes on.
    fn outgoing(&mut self) -> Option<Event<'static>> {
        match self.state {
            // The replies of a group are written together (RFC 2920 §3.2), so they wait for the answer.
            State::Recipient | State::Begin(_) | State::End => None,
            _ if !self.replies.is_empty() => Some(Event::Reply(std::mem::take(&mut self.replies))),
            State::Closing => {
                self.state = State::Closed;
                Some(Event::Close)
            }
            _ => None,
        }
    }

    fn read_command(&mut self) -> bool {
        let (used, cut) = self.lines.cut(self.input.pending());
        let command = match cut {
            Cut::Incomplete => {
                self.input.consume(used);
                return false;
            }
            Cut::Line(line) => Ok(Command::parse(line)),
            Cut::TooLong => Err(&reply::LINE_TOO_LONG),
            Cut::Malformed => {
                self.close_with(&reply::BARE_LINE_ENDING);
                return true;
            }
        };
        self.input.consume(used);
        match command {
            Ok(command) => {
                self.times.command_came();
                self.execute(command);
            }
            Err(reply) => self.reply(reply),
        }
        true
    }

    fn execute(&mut self, command: Command) {
        let arguments = match (self.forbidden(command.verb), command.arguments) {
            (_, Err(reply)) if command.verb == Verb::Bdat => return self.close_with(reply),
            // The chunk comes all the same, and must not run as commands (RFC 3030 §2).
            (Some(reply), Ok(Arguments::Bdat(chunk))) => {
                return self.read_content(Frame::Chunk(chunk), Some(reply));
            }
            (Some(reply), _) | (None, Err(reply)) => return self.reply(reply),
            (None, Ok(arguments)) => arguments,
        };
        match (command.verb, arguments) {
            (Verb::Ehlo, _) => self.greet(true),
            (Verb::Helo, _) => self.greet(false),
            (Verb::Mail, Arguments::Mail(mail)) => self.mail(mail),
            (Verb::Rcpt, Arguments::Rcpt(rcpt)) => self.rcpt(rcpt),
            (Verb::Data, _) => self.begin(Frame::Dots(Dots::default())),
            (Verb::Bdat, Arguments::Bdat(chunk)) => self.bdat(chunk),
            (Verb::Rset, _) => {
                self.reset();
                self.reply(&reply::RSET);
            }
            (Verb::Noop, _) => self.reply(&reply::NOOP),
            (Verb::Vrfy, _) => self.reply(&reply::VRFY),
            (Verb::Help, _) => self.reply(&reply::HELP),
            (Verb::Quit, _) => self.close_with(&reply::QUIT),
            (Verb::StartTls, _) => self.start_tls(),
            _ => self.reply(&reply::UNKNOWN_COMMAND),
        }
    }

    /// Why this command may not come now, whatever its arguments.
    fn forbidden(&self, verb: Verb) -> Option<&'static Reply> {
        let in_clear = self.settings.tls == TlsPolicy::Required && !self.encrypted;
        match (verb, &self.transaction) {
            (Verb::Mail | Verb::Rcpt | Verb::Data | Verb::Bdat | Verb::Vrfy, _) if in_clear => {
                Some(&reply::TLS_REQUIRED)
            }
            (Verb::StartTls, _) if self.encrypted => Some(&reply::TLS_RUNNING),
            (Verb::Mail, _) if !self.greeted => Some(&reply::NO_GREETING),
            (Verb::Mail, Some(_)) => Some(&reply::NESTED_MAIL),
            (Verb::Rcpt | Verb::Data | Verb::Bdat, None) => Some(&reply::NO_MAIL),
            (Verb::Rcpt | Verb::Data, Some(running)) if running.begun => Some(&reply::CHUNKS_BEGUN),
            (Verb::Data | Verb::Bdat, Some(running)) if running.recipients == 0 => {
                Some(match running.deferred {
                    true => &reply::RECIPIENTS_DEFERRED,
                    false => &reply::NO_RECIPIENTS,
                })
            }
            (Verb::Data, Some(running)) if running.mail.binary => Some(&reply::BINARY_NEEDS_BDAT),
            _ => None,
        }
    }

    /// EHLO and HELO forget the transaction as RSET does (RFC 5321 §4.1.4).
    fn greet(&mut self, extended: bool) {
        self.reset();
        self.greeted = true;
        if extended {
            let (name, size) = (&self.settings.hostname, self.settings.max_message);
            reply::write_ehlo(name, size, !self.encrypted, &mut self.replies);
        } else {
            self.reply(&reply::HELO);
        }
    }

    fn mail(&mut self, mail: Mail) {
        if mail
            .size
            .is_some_and(|size| size > self.settings.max_message)
        {
            return self.reply(&reply::TOO_LARGE);
        }
        self.transaction = Some(Running {
            mail,
            recipients: 0,
            deferred: false,
            begun: false,
            octets: 0,
        });
        self.reply(&reply::MAIL);
    }

    fn rcpt(&mut self, rcpt: Rcpt) {
        let Some(running) = &self.transaction else {
            return;
        };
        if rcpt.utf8 && !running.mail.smtputf8 {
            self.reply(&reply::NON_ASCII_FORWARD_PATH);
        } else if running.recipients >= self.settings.max_recipients {
            self.reply(&reply::TOO_MANY_RECIPIENTS);
        } else {
            let question = Queued::Recipient(rcpt.forward_path, running.recipients);
            self.events.push_back(question);
            self.state = State::Recipient;
        }
    }

    fn bdat(&mut self, chunk: Chunk) {
        let Some(running) = &self.transaction else {
            return;
        };
        let begun = running.begun;
        let total = running.octets.saturating_add(chunk.octets);
        if total > self.settings.max_message {
            self.reset();
            self.read_content(Frame::Chunk(chunk), Some(&reply::TOO_LARGE));
        } else if begun {
            self.read_content(Frame::Chunk(chunk), None);
        } else {
            self.begin(Frame::Chunk(chunk));
        }
    }

    /// Asks the driver whether it takes content.
    fn begin(&mut self, frame: Frame) {
        let Some(running) = &self.transaction else {
            return;
        };
        self.events.push_back(Queued::Begin(Transaction {
            reverse_path: running.mail.reverse_path.clone(),
            recipients: running.recipients,
            declared_size: running.mail.size,
            smtputf8: running.mail.smtputf8,
        }));
        self.state = State::Begin(frame);
    }

    fn start_tls(&mut self) {
        if !self.input.pending().is_empty() {
            // Sent in clear text, it would be taken for something that was said under TLS.
            return self.close_with(&reply::STARTTLS_INJECTION);
        }
        self.reset();
        self.reply(&reply::STARTTLS);
        let replies = std::mem::take(&mut self.replies);
        self.events.push_back(Queued::Reply(replies));
        self.events.push_back(Queued::StartTls);
        self.state = State::Handshake;
    }

    /// Takes what is pending of content; `refused` content is dropped.
    fn take_content(&mut self, frame: Frame, refused: Option<&'static Reply>) -> bool {
        match frame {
            Frame::Dots(dots) => self.take_data(dots, refused),
            Frame::Chunk(chunk) => self.take_chunk(chunk, refused),
        }
    }

    fn take_data(&mut self, mut dots: Dots, refused: Option<&'static Reply>) -> bool {
        let pending = self.input.pending();
        if pending.is_empty() {
            return false;
        }
        let piece = dots.next(pending);
        let frame = Frame::Dots(dots);
        self.state = State::Content { frame, refused };
        let (used, content) = match piece {
            Piece::Content(octets) => (octets, Some((Queued::Content(octets), octets))),
            Piece::HeldCr => (0, Some((Queued::HeldCr, 1))),
            Piece::Dropped(octets) | Piece::End(octets) => (octets, None),
        };
        self.count(used);
        if let (Some((event, octets)), None) = (content, refused) {
            self.hand_out(event, octets, frame);
        }
        if matches!(piece, Piece::End(_)) {
            self.content_ended(true, refused);
        }
        true
    }

    fn take_chunk(&mut self, chunk: Chunk, refused: Option<&'static Reply>) -> bool {
        if chunk.octets == 0 {
            self.content_ended(chunk.last, refused);
            return true;
        }
        let left = usize::try_from(chunk.octets).unwrap_or(usize::MAX);
        let used = self.input.pending().len().min(left);
        if used == 0 {
            return false;
        }
        let frame = Frame::Chunk(Chunk {
            octets: chunk.octets.saturating_sub(used as u64),
            ..chunk
        });
        self.state = State::Content { frame, refused };
        self.count(used);
        if refused.is_none() {
            self.hand_out(Queued::Content(used), used, frame);
        }
        true
    }

    /// Queues content, unless with it the message is over the size: then the rest is read and
    /// dropped, since a peer that has begun to send listens only after the end.
    fn hand_out(&mut self, event: Queued, octets: usize, frame: Frame) {
        let Some(running) = &mut self.transaction else {
            return;
        };
        running.octets = running.octets.saturating_add(octets as u64);
        if running.octets > self.settings.max_message {
            self.reset();
            self.state = State::Content {
                frame,
                refused: Some(&reply::TOO_LARGE),
            };
        } else {
            self.events.push_back(event);
        }
    }

    fn content_ended(&mut self, message_ended: bool, refused: Option<&'static Reply>) {
        if refused.is_none() && message_ended {
            if let Some(running) = &mut self.transaction {
                running.begun = false;
            }
            self.events.push_back(Queued::End);
            self.state = State::End;
            return;
        }
        self.listen();
        self.reply(refused.unwrap_or(&reply::CHUNK));
    }

    /// Consumes octets of content.
    fn count(&mut self, used: usize) {
        self.input.consume(used);
        let idle = self.settings.idle_timeout;
        self.times.content_came(used as u64, idle);
    }

    fn read_content(&mut self, frame: Frame, refused: Option<&'static Reply>) {
        self.times.content_awaited();
        self.state = State::Content { frame, refused };
    }

    /// Reads commands again.
    fn listen(&mut self) {
        self.times.listening();
        self.state = State::Commands;
    }

    /// The driver has answered the end of the message; `false` if there was none.
    fn end_message(&mut self, now: Instant) -> bool {
        self.times.set(now);
        let waiting = matches!(self.state, State::End);
        if waiting {
            self.transaction = None;
            self.times.message_answered();
            self.listen();
        }
        waiting
    }

    /// Forgets the transaction.
    fn reset(&mut self) {
        if self.transaction.take().is_some_and(|running| running.begun) {
            self.events.push_back(Queued::Abort);
        }
    }

    /// Queues a reply, and 421 behind the last error that is tolerated.
    fn reply(&mut self, reply: &'static Reply) {
        reply.write(&self.settings.hostname, &mut self.replies);
        let Some(reason) = reply.reason else {
            return;
        };
        self.events.push_back(Queued::Refused(reason));
        self.errors += usize::from(reason.is_of_peer());
        if reason.is_of_peer() && self.errors >= self.settings.max_errors {
            self.close_with(&reply::TOO_MANY_ERRORS);
        }
    }

    /// Queues the last reply.
    fn close_with(&mut self, reply: &'static Reply) {
        reply.write(&self.settings.hostname, &mut self.replies);
        self.events.extend(reply.reason.map(Queued::Refused));
        self.close();
    }

    fn close(&mut self) {
        self.reset();
        self.input.clear();
        if !matches!(self.state, State::Closed) {
            self.state = State::Closing;
        }
    }

    /// After the end nothing is kept of what still comes.
    fn discard_if_over(&mut self) {
        if matches!(self.state, State::Closing | State::Closed) {
            self.input.clear();
        }
    }
}
