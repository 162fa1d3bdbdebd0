//! What a session owes its driver, seen through the public interface: order, waiting, bounds.

use std::sync::Arc;
use std::time::Duration;

use clawback::smtp::{
    ContentAnswer, Deferral, Event, MESSAGE_TIMEOUT, Reason, RecipientAnswer, Refusal, Session,
    Settings, TlsPolicy,
};
use proptest::prelude::*;

use crate::bare::{Bare, Did, clear_settings, settings};

const RCPT: &str = "RCPT TO:<journal@mx.example>\r\n";

#[test]
fn the_replies_of_a_group_are_one_write() {
    let mut bare = Bare::new(clear_settings());
    bare.send("EHLO c\r\n");
    bare.did.clear();
    bare.send(["MAIL FROM:<>\r\n", RCPT, RCPT, "RCPT TO:<no@x>\r\nDATA\r\n"].concat());
    let replies = bare.did.iter().filter(|did| matches!(did, Did::Replied(_)));
    assert_eq!(replies.count(), 1);
    assert_eq!(bare.codes(), ["250", "250", "250", "550", "354"]);
    bare.did.clear();
    bare.send(
        [
            "a\r\n.\r\nMAIL FROM:<>\r\n",
            RCPT,
            "BDAT 1 LAST\r\naQUIT\r\n",
        ]
        .concat(),
    );
    let replies = bare.did.iter().filter(|did| matches!(did, Did::Replied(_)));
    assert_eq!(replies.count(), 1);
    assert_eq!(bare.codes(), ["250", "250", "250", "250", "221"]);
    assert_eq!(bare.did.last(), Some(&Did::Closed));
}

#[test]
fn a_group_without_end_is_answered_before_it_is_held() {
    let mut bare = Bare::new(clear_settings());
    bare.did.clear();
    bare.send("NOOP\r\n".repeat(100_000));
    assert_eq!(bare.codes().len(), 100_000);
    for did in &bare.did {
        assert!(matches!(did, Did::Replied(text) if text.len() < 16 * 1024));
    }
}

#[test]
fn nothing_goes_on_before_a_recipient_is_answered() {
    let mut bare = Bare::new(clear_settings());
    bare.send("EHLO c\r\nMAIL FROM:<>\r\n");
    let (session, now) = (&mut bare.session, bare.now);
    session.handle_octets([RCPT, "NOOP\r\nQUIT\r\n"].concat().as_bytes(), now);
    let asked = session.poll_event();
    assert!(matches!(asked, Some(Event::Recipient { accepted: 0, .. })));
    assert_eq!(session.poll_event(), None);
    assert_eq!(session.poll_timeout(), None, "the driver has all its time");
    session.handle_timeout(now + MESSAGE_TIMEOUT * 2);
    session.handle_octets(b"NOOP\r\n", now);
    assert_eq!(session.poll_event(), None);
    session.recipient_answer(RecipientAnswer::Accept, now);
    session.recipient_answer(RecipientAnswer::Unknown, now);
    bare.did.clear();
    bare.poll();
    assert_eq!(bare.codes(), ["250", "250", "221"]);
}

#[test]
fn nothing_goes_on_before_the_message_is_answered() {
    for octets in ["DATA\r\na\r\n.\r\nNOOP\r\n", "BDAT 3 LAST\r\na\r\nNOOP\r\n"] {
        let mut bare = Bare::with_recipient(clear_settings());
        bare.answers_end = false;
        bare.send(octets);
        assert_eq!(bare.content(), b"a\r\n", "{octets:?}");
        assert_eq!(bare.did.last(), Some(&Did::Ended), "{octets:?}");
        assert!(bare.session.has_recipient(), "{octets:?}");
        assert_eq!(bare.session.poll_timeout(), None, "{octets:?}");
        bare.did.clear();
        bare.session
            .message_stored("3 recipients\r\n250 no", bare.now);
        bare.poll();
        let expected = "250 2.0.0 3 recipients250 no\r\n250 2.0.0 nothing done\r\n";
        assert!(bare.replies().ends_with(expected), "{octets:?}");
        assert!(!bare.session.has_recipient(), "{octets:?}");
    }
}

#[test]
fn the_message_that_begins() {
    let mut bare = Bare::new(clear_settings());
    bare.send("EHLO c\r\nMAIL FROM:<\"a b\"@x> SIZE=7 SMTPUTF8\r\n");
    bare.send([RCPT, RCPT, "BDAT 0 LAST\r\n"].concat());
    let begun = bare.did.iter().find_map(|did| match did {
        Did::Began(transaction) => Some(transaction.clone()),
        _ => None,
    });
    let begun = begun.unwrap();
    let address = begun.reverse_path.address().map(ToString::to_string);
    assert_eq!(address.as_deref(), Some("\"a b\"@x"));
    assert_eq!((begun.recipients, begun.declared_size), (2, Some(7)));
    assert!(begun.smtputf8);
}

/// After `Begin` comes exactly one `End` or `Abort`, whatever happens.
#[test]
fn what_began_is_aborted() {
    for (name, octets, reason) in [
        ("RSET", "BDAT 1\r\naRSET\r\n", None),
        ("EHLO", "BDAT 1\r\naEHLO c\r\n", None),
        ("HELO", "BDAT 1\r\naHELO c\r\n", None),
        ("QUIT", "BDAT 1\r\naQUIT\r\n", None),
        ("STARTTLS", "BDAT 1\r\naSTARTTLS\r\n", None),
        ("bare LF", "BDAT 1\r\na\n", Some(Reason::BareLineEnding)),
        (
            "wrong number",
            "BDAT 1\r\naBDAT x\r\n",
            Some(Reason::Syntax),
        ),
        (
            "chunk too large",
            "BDAT 1\r\naBDAT 10\r\n0123456789",
            Some(Reason::TooLarge),
        ),
        (
            "too large",
            "DATA\r\n0123456789\r\n.\r\n",
            Some(Reason::TooLarge),
        ),
    ] {
        let mut bare = Bare::with_recipient(Settings {
            max_message: 10,
            ..clear_settings()
        });
        bare.send(octets);
        let aborts = bare.did.iter().filter(|did| **did == Did::Aborted).count();
        assert_eq!(aborts, 1, "{name}: {:?}", bare.did);
        assert!(!bare.has(&Did::Ended), "{name}");
        assert!(!bare.session.has_recipient(), "{name}");
        let refused = bare.did.iter().find_map(|did| match did {
            Did::Refused(reason) => Some(*reason),
            _ => None,
        });
        assert_eq!(refused, reason, "{name}");
    }
}

#[test]
fn a_disconnect_aborts_and_says_nothing() {
    for octets in [
        "DATA\r\na",
        "DATA\r\na\r\n.\r",
        "BDAT 2 LAST\r\na",
        "BDAT 1\r\na",
    ] {
        let mut bare = Bare::with_recipient(clear_settings());
        bare.send(octets);
        bare.did.clear();
        bare.session.handle_disconnect();
        bare.poll();
        assert_eq!(bare.did, [Did::Aborted, Did::Closed], "{octets:?}");
        bare.send("NOOP\r\n");
        bare.session.handle_disconnect();
        bare.poll();
        assert_eq!(bare.did.len(), 2, "{octets:?}: nothing after the end");
    }
    let mut bare = Bare::with_recipient(clear_settings());
    bare.answers_end = false;
    bare.send("BDAT 1 LAST\r\na");
    bare.did.clear();
    bare.session.handle_disconnect();
    bare.session.message_stored("too late", bare.now);
    bare.poll();
    assert_eq!(bare.did, [Did::Closed], "the end was handed out before");
}

#[test]
fn a_stop_lets_the_transaction_end() {
    let mut bare = Bare::with_recipient(clear_settings());
    bare.send("DATA\r\na");
    bare.session.shut_down(bare.now);
    bare.poll();
    bare.did.clear();
    bare.send("\r\n.\r\nMAIL FROM:<>\r\n");
    assert_eq!(bare.codes(), ["250", "421"]);
    assert!(bare.has(&Did::Ended));
    assert!(bare.has(&Did::Refused(Reason::ShuttingDown)));
    assert_eq!(bare.did.last(), Some(&Did::Closed));

    let mut bare = Bare::new(settings());
    bare.did.clear();
    bare.session.shut_down(bare.now);
    bare.poll();
    assert!(bare.replies().starts_with("421 4.3.2 mx.example "));
    assert_eq!(bare.did.last(), Some(&Did::Closed));

    let mut bare = Bare::new(settings());
    bare.send("STARTTLS\r\n");
    bare.did.clear();
    bare.session.shut_down(bare.now);
    bare.poll();
    assert_eq!(
        bare.did,
        [Did::Closed],
        "nothing is said during the handshake"
    );
}

/// A place is kept for whoever has named a recipient of ours, and for nobody else.
#[test]
fn room_is_made_only_where_nothing_is_lost() {
    let accepted = ["MAIL FROM:<>\r\n", RCPT].concat();
    for (name, octets, holds) in [
        ("nothing", String::new(), false),
        ("MAIL alone", "MAIL FROM:<>\r\n".to_owned(), false),
        (
            "a recipient that is none of ours",
            "MAIL FROM:<>\r\nRCPT TO:<no@x>\r\n".to_owned(),
            false,
        ),
        (
            "a refused chunk under way",
            "BDAT 100000\r\nabc".to_owned(),
            false,
        ),
        ("a recipient", accepted.clone(), true),
        ("content", accepted.clone() + "DATA\r\nabc", true),
        ("a chunk", accepted.clone() + "BDAT 9 LAST\r\nabc", true),
        ("between chunks", accepted.clone() + "BDAT 3\r\nabc", true),
        ("after RSET", accepted.clone() + "RSET\r\n", false),
        ("after a message", accepted + "BDAT 1 LAST\r\na", false),
    ] {
        let mut bare = Bare::new(clear_settings());
        bare.send("EHLO c\r\n".to_owned() + &octets);
        bare.did.clear();
        assert_eq!(bare.session.has_recipient(), holds, "{name}");
        assert_eq!(bare.session.make_room(bare.now), !holds, "{name}");
        bare.poll();
        let told: &[&str] = if holds { &[] } else { &["421"] };
        assert_eq!(bare.codes(), told, "{name}");
        assert_eq!(bare.has(&Did::Closed), !holds, "{name}");
        assert!(!bare.session.make_room(bare.now), "{name}: only once");
    }
}

#[test]
fn connections_turned_away_hear_why() {
    let now = Bare::new(settings()).now;
    for (why, start, reason) in [
        (
            Refusal::TooManyConnections,
            "421 4.3.2 mx.example ",
            Reason::TooManyConnections,
        ),
        (
            Refusal::TooManyFromPeer,
            "421 4.7.0 mx.example ",
            Reason::TooManyFromPeer,
        ),
        (
            Refusal::ShuttingDown,
            "421 4.3.2 mx.example ",
            Reason::ShuttingDown,
        ),
    ] {
        let mut bare = Bare::with(Session::refuse(Arc::new(settings()), why, now), now);
        bare.send("EHLO c\r\n");
        assert!(bare.replies().starts_with(start), "{why:?}");
        assert_eq!(bare.codes().len(), 1, "{why:?}");
        assert!(bare.has(&Did::Refused(reason)), "{why:?}");
        assert_eq!(bare.did.last(), Some(&Did::Closed), "{why:?}");
    }
}

/// However much comes, what the session holds stays as it was.
#[test]
fn memory_stays_flat() {
    const PIECE: usize = 1 << 16;
    for (name, opening, codes, aborted) in [
        ("a line without end", "", ["500", "421"], false),
        (
            "an oversize chunk",
            "BDAT 67108864\r\n",
            ["552", "421"],
            false,
        ),
        ("a message without end", "DATA\r\n", ["354", "421"], true),
    ] {
        let mut bare = Bare::with_recipient(Settings {
            max_message: 32 << 20,
            ..clear_settings()
        });
        bare.send(opening);
        let piece = vec![b'x'; PIECE];
        let mut peak = 0;
        let mut left = 64 << 20;
        while left > 0 {
            let space = bare.session.space();
            let octets = space.len().min(left).min(PIECE);
            space[..octets].copy_from_slice(&piece[..octets]);
            bare.session.handle_read(octets, bare.now);
            left -= octets;
            peak = peak.max(bare.session.memory());
            bare.poll();
            // A driver passes content on; here it is only in the way.
            bare.did.retain(|did| !matches!(did, Did::Content(_)));
        }
        assert!(peak <= 64 * 1024, "{name}: {peak} octets");
        assert_eq!(bare.has(&Did::Aborted), aborted, "{name}");
        bare.elapse(MESSAGE_TIMEOUT);
        assert_eq!(bare.codes(), codes, "{name}");
        assert_eq!(
            bare.did.last(),
            Some(&Did::Closed),
            "{name}: closed in the end"
        );
    }
}

#[test]
fn ten_thousand_recipients() {
    let mut bare = Bare::new(clear_settings());
    bare.send("EHLO c\r\nMAIL FROM:<>\r\n");
    bare.did.clear();
    bare.send(RCPT.repeat(10_000));
    let codes = bare.codes();
    assert!(codes[..1000].iter().all(|code| code == "250"));
    assert!(codes[1000..].iter().all(|code| code == "452"));
    assert_eq!(codes.len(), 10_000);
    bare.did.clear();
    bare.send("BDAT 0 LAST\r\n");
    assert_eq!(
        bare.codes(),
        ["250"],
        "those that were accepted get their message"
    );
}

#[test]
fn a_session_may_last_while_messages_come() {
    let mut bare = Bare::new(clear_settings());
    bare.send("EHLO c\r\n");
    for _ in 0..50 {
        bare.did.clear();
        bare.elapse(Duration::from_secs(290));
        bare.send(["MAIL FROM:<>\r\n", RCPT, "BDAT 0 LAST\r\n"].concat());
        assert_eq!(bare.codes(), ["250", "250", "250"]);
    }
}

/// Content is judged by its rate, however short the time-out.
#[test]
fn dripping_content_ends_with_a_short_time_out() {
    let mut bare = Bare::with_recipient(Settings {
        idle_timeout: Duration::from_millis(500),
        ..clear_settings()
    });
    bare.send("DATA\r\n");
    for _ in 0..2 {
        assert!(!bare.has(&Did::Closed));
        bare.elapse(Duration::from_millis(300));
        bare.send("a");
    }
    assert_eq!(bare.codes(), ["354", "421"]);
    assert_eq!(bare.did.last(), Some(&Did::Closed));
}

#[test]
fn content_refused_at_its_beginning_is_not_owed_an_end() {
    let mut bare = Bare::with_recipient(clear_settings());
    bare.content = ContentAnswer::Defer(Deferral::Memory);
    bare.send("BDAT 3 LAST\r\nabc");
    assert_eq!(bare.codes(), ["452"]);
    assert!(bare.has(&Did::Refused(Reason::Memory)));
    assert!(!bare.has(&Did::Aborted) && !bare.has(&Did::Ended));
    assert_eq!(bare.content(), b"");
}

#[test]
fn reasons_have_names_of_their_own() {
    let names: std::collections::BTreeSet<_> = Reason::ALL.map(Reason::as_str).into();
    assert_eq!(names.len(), Reason::ALL.len());
    for name in names {
        assert!(
            name.chars().all(|c| c.is_ascii_lowercase() || c == '_'),
            "{name}"
        );
    }
}

/// What a session did, whatever the grouping of replies and the cuts of content. How much of an
/// aborted message was handed out does depend on the cuts.
fn summary(bare: &Bare) -> (String, Vec<Did>) {
    let mut rest: Vec<Did> = Vec::new();
    for did in &bare.did {
        match (did, rest.last_mut()) {
            (Did::Replied(_), _) => {}
            (Did::Content(octets), Some(Did::Content(before))) => before.extend(octets),
            (Did::Aborted, Some(Did::Content(_))) => {
                rest.pop();
                rest.push(Did::Aborted);
            }
            (did, _) => rest.push(did.clone()),
        }
    }
    (bare.replies(), rest)
}

fn session_of(pieces: &[&[u8]], tls: TlsPolicy) -> (String, Vec<Did>) {
    let mut bare = Bare::new(Settings {
        tls,
        max_message: 30,
        max_errors: 6,
        ..settings()
    });
    for piece in pieces {
        bare.send(piece);
    }
    summary(&bare)
}

fn fragment() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        3 => Just("MAIL FROM:<>\r\nRCPT TO:<journal@mx.example>\r\n"),
        1 => Just("EHLO c\r\n"),
        1 => Just("MAIL FROM:<a@x> SIZE=31\r\n"),
        1 => Just("RCPT TO:<nobody@x>\r\n"),
        2 => Just("DATA\r\n"),
        2 => Just("BDAT 9\r\n"),
        2 => Just("BDAT 5 LAST\r\n"),
        1 => Just("BDAT 40\r\n"),
        2 => Just("\r\n.\r\n"),
        1 => Just("RSET\r\n"),
        1 => Just("QUIT\r\n"),
        1 => Just("NOOP"),
        2 => Just("hello"),
        2 => Just("\r\n"),
        1 => Just("."),
        1 => Just("\r"),
        1 => Just("\n"),
    ]
}

proptest! {
    /// Where the network cuts the stream changes nothing.
    #[test]
    fn cuts_are_invisible(
        fragments in proptest::collection::vec(fragment(), 0..16),
        cuts in proptest::collection::vec(0usize..200, 0..6),
    ) {
        let stream = ["EHLO c\r\n", fragments.concat().as_str()].concat();
        let stream = stream.as_bytes();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([stream.len()]) {
            pieces.push(&stream[from..cut]);
            from = cut;
        }
        let whole = session_of(&[stream], TlsPolicy::Optional);
        prop_assert_eq!(&session_of(&pieces, TlsPolicy::Optional), &whole);
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        prop_assert_eq!(&session_of(&single, TlsPolicy::Optional), &whole);
        let whole = session_of(&[stream], TlsPolicy::Required);
        prop_assert_eq!(&session_of(&single, TlsPolicy::Required), &whole);
    }

    /// What is sent by DATA and by BDAT arrives, octet for octet.
    #[test]
    fn content_arrives(
        lines in proptest::collection::vec("[.\r\n\0]{0,3}[a-c.]{0,4}", 0..12),
        chunks in proptest::collection::vec(0usize..20, 0..6),
        read in 1usize..50,
    ) {
        let content = [lines.join("\r\n").as_str(), "\r\n"].concat().into_bytes();
        let mut bare = Bare::with_recipient(clear_settings());
        bare.send("DATA\r\n");
        let mut stuffed: Vec<u8> = Vec::new();
        for (at, octet) in content.iter().enumerate() {
            if *octet == b'.' && (at == 0 || content[..at].ends_with(b"\r\n")) {
                stuffed.push(b'.');
            }
            stuffed.push(*octet);
        }
        stuffed.extend(b".\r\n");
        for piece in stuffed.chunks(read) {
            bare.read(piece);
        }
        prop_assert_eq!(bare.content(), content.as_slice());
        prop_assert!(bare.has(&Did::Ended));

        let mut bare = Bare::with_recipient(clear_settings());
        let mut stream: Vec<u8> = Vec::new();
        let mut rest = content.as_slice();
        for octets in chunks {
            let (chunk, after) = rest.split_at(octets.min(rest.len()));
            stream.extend(format!("BDAT {}\r\n", chunk.len()).bytes());
            stream.extend(chunk);
            rest = after;
        }
        stream.extend(format!("BDAT {} LAST\r\n", rest.len()).bytes());
        stream.extend(rest);
        for piece in stream.chunks(read) {
            bare.read(piece);
        }
        prop_assert_eq!(bare.content(), content);
        prop_assert!(bare.has(&Did::Ended));
    }
}
