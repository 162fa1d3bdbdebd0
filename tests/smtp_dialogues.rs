//! SMTP conversations as text, in RFC 5321's own notation.
//!
//! Each file of `tests/dialogues` holds dialogues; a line of one is
//!
//! ```text
//! == title          a dialogue begins
//! # text            a comment
//! ! max_errors 100  a setting that differs, see `Dialogue::set`
//! ! tls             the dialogue starts under TLS: greeting to second EHLO are done
//! ! bare            it cannot be held over a socket: time passes, or the driver has trouble
//! C: text           the client sends the line; those that follow each other go in one write
//! C> text\r\n       the same without CRLF of its own; \r \n \0 \\ and \xHH are octets
//! C*9 text          the same, nine times
//! S: 250 2.1.0      the server replies a line that begins so, up to a blank or its end
//! S: 250-*          any number of lines that begin so
//! S!                the server closes
//! M: text\r\n       the next message had this content (bare only)
//! TLS               the handshake
//! T: 300            seconds pass (bare only)
//! ```

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::time::Duration;

use clawback::smtp::{ContentAnswer, Deferral, Settings, TlsPolicy};

use crate::bare::{Bare, Did, settings};

/// A conversation and what it needs.
#[derive(Debug, Clone)]
pub(crate) struct Dialogue {
    /// File and title.
    pub(crate) name: String,
    /// The bounds of the session.
    pub(crate) settings: Settings,
    /// It needs a driver that can be told to fail, or a clock that can be turned.
    pub(crate) bare: bool,
    /// It starts under TLS.
    pub(crate) tls: bool,
    content: ContentAnswer,
    deferral: Option<Deferral>,
    steps: Vec<(usize, Step)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Client(Vec<u8>),
    Server(String),
    Message(Vec<u8>),
    Handshake,
    Elapse(Duration),
    Closed,
}

/// The client's end of a connection to `mx.example`, where `journal@mx.example` and
/// `other@mx.example` are addresses of two tenants.
pub(crate) trait Peer {
    /// Writes in one write.
    fn send(&mut self, octets: &[u8]);
    /// The next line of a reply, without its CRLF; `None` if the server has closed.
    fn line(&mut self) -> Option<String>;
    /// Runs the handshake.
    fn start_tls(&mut self);
    /// Content of the next message, if this peer can know.
    fn message(&mut self) -> Option<Vec<u8>>;
    /// Lets time pass; bare dialogues only.
    fn elapse(&mut self, duration: Duration);
}

/// Every dialogue there is.
pub(crate) fn dialogues() -> Vec<Dialogue> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    paths.sort();
    let texts = paths.iter().map(|path| {
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        parse(&file, &fs::read_to_string(path).unwrap())
    });
    texts.flatten().collect()
}

impl Dialogue {
    /// Holds the conversation; panics where the server says something else.
    pub(crate) fn run(&self, peer: &mut impl Peer) {
        if self.tls {
            for (line, expected) in [("", "220"), ("EHLO c", "250"), ("STARTTLS", "220")] {
                if !line.is_empty() {
                    peer.send(format!("{line}\r\n").as_bytes());
                }
                read_reply(peer, expected);
            }
            peer.start_tls();
            peer.send(b"EHLO c\r\n");
            read_reply(peer, "250");
        }
        let mut read_ahead = None;
        for (number, step) in &self.steps {
            let place = format!("{}, line {number}", self.name);
            match step {
                Step::Client(octets) => peer.send(octets),
                Step::Server(pattern) => expect_line(peer, &mut read_ahead, pattern, &place),
                Step::Handshake => peer.start_tls(),
                Step::Elapse(duration) => peer.elapse(*duration),
                Step::Closed => assert_eq!(peer.line(), None, "{place}: still open"),
                Step::Message(content) => {
                    if let Some(message) = peer.message() {
                        let (message, content) = (message.escape_ascii(), content.escape_ascii());
                        assert_eq!(message.to_string(), content.to_string(), "{place}");
                    }
                }
            }
        }
        assert_eq!(read_ahead, None, "{}: a line too many", self.name);
    }

    fn set(&mut self, setting: &str) {
        let (key, value) = setting.split_once(' ').unwrap_or((setting, ""));
        let settings = &mut self.settings;
        match key {
            "tls" => self.tls = true,
            "bare" => self.bare = true,
            "clear" => settings.tls = TlsPolicy::Optional,
            "max_message" => settings.max_message = value.parse().unwrap(),
            "max_recipients" => settings.max_recipients = value.parse().unwrap(),
            "max_errors" => settings.max_errors = value.parse().unwrap(),
            "begin_deferred" => self.content = ContentAnswer::Defer(deferral(value)),
            "end_deferred" => self.deferral = Some(deferral(value)),
            _ => panic!("{}: no setting {key:?}", self.name),
        }
        assert!(
            self.bare || !key.ends_with("deferred"),
            "{}: trouble of the driver is for bare dialogues",
            self.name
        );
    }
}

fn deferral(name: &str) -> Deferral {
    match name {
        "memory" => Deferral::Memory,
        "storage_full" => Deferral::StorageFull,
        "storage_failed" => Deferral::StorageFailed,
        "quarantine_full" => Deferral::QuarantineFull,
        "internal" => Deferral::Internal,
        "shutting_down" => Deferral::ShuttingDown,
        _ => panic!("no deferral {name:?}"),
    }
}

fn read_reply(peer: &mut impl Peer, code: &str) {
    loop {
        let line = peer.line().expect("the server closed before the dialogue");
        assert!(line.starts_with(code), "{line:?} before the dialogue");
        if !line.starts_with(&format!("{code}-")) {
            return;
        }
    }
}

fn expect_line(peer: &mut impl Peer, ahead: &mut Option<String>, pattern: &str, place: &str) {
    if let Some(start) = pattern.strip_suffix('*') {
        loop {
            let line = ahead.take().or_else(|| peer.line());
            let line = line.unwrap_or_else(|| panic!("{place}: closed, expected {pattern:?}"));
            if !line.starts_with(start) {
                *ahead = Some(line);
                return;
            }
        }
    }
    let line = ahead.take().or_else(|| peer.line());
    let line = line.unwrap_or_else(|| panic!("{place}: closed, expected {pattern:?}"));
    let rest = line.strip_prefix(pattern);
    let matches = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
    assert!(matches, "{place}: {line:?}, expected {pattern:?}");
}

fn parse(file: &str, text: &str) -> Vec<Dialogue> {
    let mut dialogues = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(title) = line.strip_prefix("== ") {
            dialogues.push(Dialogue {
                name: format!("{file}: {title}"),
                settings: settings(),
                bare: false,
                tls: false,
                content: ContentAnswer::Accept,
                deferral: None,
                steps: Vec::new(),
            });
            continue;
        }
        let place = format!("{file}, line {number}");
        let dialogue = dialogues.last_mut().expect("a title comes first");
        match line.strip_prefix("! ") {
            Some(setting) => dialogue.set(setting),
            None => dialogue.push(number, step(line, &place)),
        }
    }
    dialogues
}

impl Dialogue {
    fn push(&mut self, number: usize, step: Step) {
        assert!(
            self.bare || !matches!(step, Step::Elapse(_)),
            "{}: time passes in bare dialogues only",
            self.name
        );
        match (self.steps.last_mut(), step) {
            (Some((_, Step::Client(before))), Step::Client(octets)) => before.extend(octets),
            (Some((_, Step::Message(before))), Step::Message(octets)) => before.extend(octets),
            (_, step) => self.steps.push((number, step)),
        }
    }
}

fn step(line: &str, place: &str) -> Step {
    let argument = |prefix: &str| {
        let rest = line.strip_prefix(prefix)?;
        Some(rest.strip_prefix(' ').unwrap_or(rest))
    };
    if let Some(text) = argument("C:") {
        return Step::Client(format!("{text}\r\n").into_bytes());
    }
    if let Some(text) = argument("C>") {
        return Step::Client(unescape(text));
    }
    if let Some(text) = line.strip_prefix("C*") {
        let (times, text) = text.split_once(' ').unwrap();
        return Step::Client(unescape(text).repeat(times.parse().unwrap()));
    }
    if let Some(text) = argument("S:") {
        return Step::Server(text.to_owned());
    }
    if let Some(text) = argument("M:") {
        return Step::Message(unescape(text));
    }
    if let Some(text) = argument("T:") {
        return Step::Elapse(Duration::from_secs(text.parse().unwrap()));
    }
    match line {
        "S!" => Step::Closed,
        "TLS" => Step::Handshake,
        _ => panic!("{place}: no step of a dialogue: {line:?}"),
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'\\' => match rest.next().unwrap() {
                b'r' => b'\r',
                b'n' => b'\n',
                b'0' => 0,
                b'\\' => b'\\',
                b'x' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                other => panic!("no escape \\{}", other.escape_ascii()),
            },
            octet => octet,
        });
    }
    octets
}

/// The bare session as a peer; what it says is read from what it did.
struct BarePeer {
    bare: Bare,
    lines: VecDeque<String>,
    messages: VecDeque<Vec<u8>>,
    /// Messages that ended so far.
    ended: usize,
    closed: bool,
    handshake: bool,
    /// Octets of a write that go in at once.
    cut: usize,
}

impl BarePeer {
    fn new(dialogue: &Dialogue, cut: usize) -> Self {
        let mut bare = Bare::new(dialogue.settings.clone());
        bare.content = dialogue.content;
        bare.deferral = dialogue.deferral;
        let mut peer = Self {
            bare,
            lines: VecDeque::new(),
            messages: VecDeque::new(),
            ended: 0,
            closed: false,
            handshake: false,
            cut,
        };
        peer.gather();
        peer
    }

    fn gather(&mut self) {
        let mut content = Vec::new();
        for did in self.bare.did.drain(..) {
            assert!(!self.closed, "{did:?} after the close");
            match did {
                Did::Replied(text) => self.lines.extend(text.lines().map(str::to_owned)),
                Did::StartedTls => self.handshake = true,
                Did::Closed => self.closed = true,
                Did::Content(octets) => content.extend(octets),
                Did::Ended => {
                    self.ended += 1;
                    self.messages.push_back(std::mem::take(&mut content));
                }
                Did::Aborted => content.clear(),
                Did::Asked(_) | Did::Began(_) | Did::Refused(_) => {}
            }
        }
        if !content.is_empty() {
            // The message goes on after the next read.
            self.bare.did.push(Did::Content(content));
        }
    }
}

impl Peer for BarePeer {
    fn send(&mut self, octets: &[u8]) {
        assert!(
            self.lines.is_empty(),
            "not in the dialogue: {:?}",
            self.lines
        );
        for piece in octets.chunks(self.cut) {
            self.bare.send(piece);
        }
        self.gather();
    }

    fn line(&mut self) -> Option<String> {
        let line = self.lines.pop_front();
        assert!(line.is_some() || self.closed, "the session waits for more");
        line
    }

    fn start_tls(&mut self) {
        assert!(self.handshake, "the session did not start TLS");
        self.bare.session.tls_started(self.bare.now);
        self.bare.poll();
        self.gather();
    }

    fn message(&mut self) -> Option<Vec<u8>> {
        Some(self.messages.pop_front().expect("no message ended"))
    }

    fn elapse(&mut self, duration: Duration) {
        self.bare.elapse(duration);
        self.gather();
    }
}

#[test]
fn bare_sessions_hold_every_dialogue() {
    let dialogues = dialogues();
    assert!(dialogues.len() > 50, "only {} found", dialogues.len());
    for dialogue in &dialogues {
        let mut peer = BarePeer::new(dialogue, usize::MAX);
        dialogue.run(&mut peer);
        assert!(
            peer.lines.is_empty(),
            "{}: {:?} too many",
            dialogue.name,
            peer.lines
        );
    }
}

/// Each of the published smuggling forms, and some more: one message, nothing of it runs.
#[test]
fn eighteen_smuggling_attempts() {
    let dialogues = dialogues().into_iter();
    let attempts: Vec<_> = dialogues
        .filter(|dialogue| dialogue.name.starts_with("smuggling.txt"))
        .filter(|dialogue| !dialogue.name.ends_with("in a chunk"))
        .collect();
    assert_eq!(attempts.len(), 18);
    for dialogue in attempts {
        let mut peer = BarePeer::new(&dialogue, usize::MAX);
        dialogue.run(&mut peer);
        assert_eq!(peer.ended, 1, "{}", dialogue.name);
    }
}

/// Where the network cuts the stream changes nothing, but for what comes behind STARTTLS: that a
/// read brings both is how it is noticed.
#[test]
fn octet_by_octet_the_dialogues_are_the_same() {
    for dialogue in dialogues() {
        if dialogue.name.contains("injection") {
            continue;
        }
        let mut peer = BarePeer::new(&dialogue, 1);
        dialogue.run(&mut peer);
        assert!(
            peer.lines.is_empty(),
            "{}: {:?} too many",
            dialogue.name,
            peer.lines
        );
    }
}
