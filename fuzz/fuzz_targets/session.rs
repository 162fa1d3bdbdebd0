//! Any octets for [`Session`]: no panic, what it promises its driver holds, and where the network
//! cuts the stream changes nothing.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use clawback::smtp::{ContentAnswer, Event, RecipientAnswer, Session, Settings, TlsPolicy};
use libfuzzer_sys::fuzz_target;

const MAX_MESSAGE: u64 = 64;

static NOW: LazyLock<Instant> = LazyLock::new(Instant::now);

fuzz_target!(|octets: &[u8]| {
    let Some((choices, stream)) = octets.split_first() else {
        return;
    };
    let (whole, encrypted) = run(stream, stream.len().max(1), *choices);
    let (cut, cut_encrypted) = run(stream, usize::from(choices >> 4) + 1, *choices);
    // That one read brings STARTTLS and more is how injection is noticed.
    if !encrypted && !cut_encrypted {
        assert_eq!(whole, cut);
    }
});

/// What was replied, and the messages that ended.
type Outcome = (String, Vec<Vec<u8>>);

fn run(stream: &[u8], step: usize, choices: u8) -> (Outcome, bool) {
    let settings = Settings {
        hostname: "mx.example".to_owned(),
        tls: if choices & 1 == 0 {
            TlsPolicy::Optional
        } else {
            TlsPolicy::Required
        },
        max_message: MAX_MESSAGE,
        max_recipients: 2,
        max_errors: 8,
        idle_timeout: Duration::from_secs(300),
        handshake_timeout: Duration::from_secs(30),
    };
    let mut session = Session::new(Arc::new(settings), *NOW);
    let (mut replies, mut messages, mut asked_tls) = (String::new(), Vec::new(), false);
    let (mut open, mut closed): (Option<Vec<u8>>, bool) = (None, false);
    for piece in [&b""[..]].into_iter().chain(stream.chunks(step)) {
        session.handle_octets(piece, *NOW);
        while let Some(event) = session.poll_event() {
            assert!(!closed, "{event:?} after the close");
            let mut start_tls = false;
            match event {
                Event::Reply(text) => replies += std::str::from_utf8(&text).expect("ASCII"),
                Event::StartTls => start_tls = true,
                Event::Recipient { accepted, .. } => {
                    assert!(accepted < 2);
                    let answer = match choices & 2 {
                        0 => RecipientAnswer::Accept,
                        _ if accepted == 0 => RecipientAnswer::Accept,
                        _ => RecipientAnswer::Unknown,
                    };
                    session.recipient_answer(answer, *NOW);
                }
                Event::Begin(_) => {
                    assert_eq!(open.replace(Vec::new()), None, "one message at a time");
                    session.content_answer(ContentAnswer::Accept, *NOW);
                }
                Event::Content(octets) => {
                    let open = open.as_mut().expect("content after Begin");
                    open.extend_from_slice(octets);
                    assert!(!octets.is_empty() && open.len() as u64 <= MAX_MESSAGE);
                }
                Event::End => {
                    messages.push(open.take().expect("End after Begin"));
                    session.message_stored("stored", *NOW);
                }
                Event::Abort => assert!(open.take().is_some(), "Abort after Begin"),
                Event::Refused(_) => {}
                Event::Close => closed = true,
            }
            if start_tls {
                asked_tls = true;
                session.tls_started(*NOW);
            }
        }
        assert!(session.memory() < (64 << 10) + 2 * stream.len(), "memory");
        assert!(
            closed || session.poll_timeout().is_some(),
            "the peer is waited for"
        );
    }
    assert!(
        replies
            .lines()
            .all(|line| line.as_bytes()[..3].iter().all(u8::is_ascii_digit))
    );
    session.handle_disconnect();
    ((replies, messages), asked_tls)
}
