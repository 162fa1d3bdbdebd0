//! smtp-proto as an oracle: a command line that our session accepts, it accepts too and with the
//! same meaning. Where it is wrong stands in a table, with proof that it still is: what is mended
//! there leaves the table here.

use std::borrow::Cow;

use proptest::prelude::*;
use smtp_proto::request::receiver::DataReceiver;
use smtp_proto::{MAIL_BODY_BINARYMIME, MAIL_SMTPUTF8, Request};

use crate::bare::{Bare, Did, clear_settings};

/// What a command line says, as far as it matters to us.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Meaning {
    Ehlo,
    Helo,
    Mail {
        address: String,
        size: Option<u64>,
        binary: bool,
        smtputf8: bool,
    },
    Rcpt(String),
    Bdat {
        octets: u64,
        last: bool,
    },
    Data,
    Rset,
    Noop,
    Vrfy,
    Help,
    Quit,
    StartTls,
}

/// A chunk that the tests count by sending more than it holds.
const COUNTED_OCTETS: u64 = 5000;

/// What our session makes of a line; `None` if it refuses it.
fn ours(line: &[u8]) -> Option<Meaning> {
    let line = [line, b"\r\n"].concat();
    let is_mail = line
        .get(..4)
        .is_some_and(|verb| verb.eq_ignore_ascii_case(b"MAIL"));
    let is_rcpt = line
        .get(..4)
        .is_some_and(|verb| verb.eq_ignore_ascii_case(b"RCPT"));
    let mut bare = Bare::new(clear_settings());
    bare.send("EHLO c\r\n");
    if is_mail {
        return our_mail(bare, &line);
    }
    bare.send("MAIL FROM:<> SMTPUTF8\r\n");
    if !is_rcpt {
        bare.send("RCPT TO:<journal@mx.example>\r\n");
    }
    bare.did.clear();
    bare.send(&line);
    if let Some(Did::Asked(address)) = bare.did.first() {
        return Some(Meaning::Rcpt(address.clone()));
    }
    let begun = bare.did.iter().any(|did| matches!(did, Did::Began(_)));
    let replies = bare.replies();
    match replies.get(..3) {
        Some("354") => Some(Meaning::Data),
        Some("252") => Some(Meaning::Vrfy),
        Some("214") => Some(Meaning::Help),
        Some("221") => Some(Meaning::Quit),
        Some("220") => Some(Meaning::StartTls),
        _ if begun => {
            bare.send("x".repeat(usize::try_from(COUNTED_OCTETS).unwrap()));
            Some(Meaning::Bdat {
                octets: bare.content().len() as u64,
                last: bare.has(&Did::Ended),
            })
        }
        Some("250") if replies.contains("250-") => Some(Meaning::Ehlo),
        Some("250") if replies.contains("nothing done") => Some(Meaning::Noop),
        Some("250") if replies.contains("transaction forgotten") => Some(Meaning::Rset),
        Some("250") => Some(Meaning::Helo),
        _ => None,
    }
}

fn our_mail(mut bare: Bare, line: &[u8]) -> Option<Meaning> {
    bare.did.clear();
    bare.send(line);
    if bare.codes() != ["250"] {
        return None;
    }
    bare.did.clear();
    bare.send("RCPT TO:<journal@mx.example>\r\nDATA\r\n");
    let binary = bare.codes() == ["250", "503"];
    bare.send("BDAT 0 LAST\r\n");
    let begun = bare.did.iter().find_map(|did| match did {
        Did::Began(transaction) => Some(transaction.clone()),
        _ => None,
    });
    let transaction = begun.expect("every accepted MAIL leads to a message");
    let address = transaction.reverse_path.address();
    Some(Meaning::Mail {
        address: address.map(ToString::to_string).unwrap_or_default(),
        size: transaction.declared_size,
        binary,
        smtputf8: transaction.smtputf8,
    })
}

/// What smtp-proto makes of it.
fn theirs(line: &[u8]) -> Option<Meaning> {
    let line = [line, b"\r\n"].concat();
    let request: Request<Cow<'_, str>> = Request::parse(&mut line.iter()).ok()?;
    Some(match request {
        Request::Ehlo { .. } => Meaning::Ehlo,
        Request::Helo { .. } => Meaning::Helo,
        Request::Mail { from } => Meaning::Mail {
            address: from.address.into_owned(),
            // It does not tell SIZE=0 from none.
            size: (from.size > 0).then_some(from.size as u64),
            binary: from.flags & MAIL_BODY_BINARYMIME != 0,
            smtputf8: from.flags & MAIL_SMTPUTF8 != 0,
        },
        Request::Rcpt { to } => Meaning::Rcpt(to.address.into_owned()),
        Request::Bdat {
            chunk_size,
            is_last,
        } => Meaning::Bdat {
            octets: chunk_size as u64,
            last: is_last,
        },
        Request::Data => Meaning::Data,
        Request::Rset => Meaning::Rset,
        Request::Noop { .. } => Meaning::Noop,
        Request::Vrfy { .. } => Meaning::Vrfy,
        Request::Help { .. } => Meaning::Help,
        Request::Quit => Meaning::Quit,
        Request::StartTls => Meaning::StartTls,
        _ => return None,
    })
}

fn mail(address: &str) -> Option<Meaning> {
    Some(Meaning::Mail {
        address: address.to_owned(),
        size: None,
        binary: false,
        smtputf8: false,
    })
}

fn mail_of_size(size: u64) -> Option<Meaning> {
    Some(Meaning::Mail {
        address: String::new(),
        size: Some(size),
        binary: false,
        smtputf8: false,
    })
}

fn rcpt(address: &str) -> Option<Meaning> {
    Some(Meaning::Rcpt(address.to_owned()))
}

fn bdat(octets: u64, last: bool) -> Option<Meaning> {
    Some(Meaning::Bdat { octets, last })
}

#[test]
fn lines_that_both_accept() {
    for (line, meaning) in [
        ("EHLO client.example", Some(Meaning::Ehlo)),
        ("ehlo [127.0.0.1]", Some(Meaning::Ehlo)),
        ("HELO c", Some(Meaning::Helo)),
        ("MAIL FROM:<>", mail("")),
        ("MAIL FROM: <>", mail("")),
        ("mail from:<a.b@x.example>", mail("a.b@x.example")),
        ("MAIL FROM:<A@X.Example> BODY=8BITMIME", mail("A@X.Example")),
        ("MAIL FROM:<@relay.example:a@x>", mail("a@x")),
        ("MAIL FROM:<@a.example,@b.example:a@x>", mail("a@x")),
        ("MAIL FROM:<> SIZE=18322", mail_of_size(18322)),
        ("MAIL FROM:<>  size=1  body=7bit ", mail_of_size(1)),
        ("RCPT TO:<a@x.example>", rcpt("a@x.example")),
        (
            "RCPT TO: <ünï@exämple.example>",
            rcpt("ünï@exämple.example"),
        ),
        ("RCPT TO:<a@exch_01.local>", rcpt("a@exch_01.local")),
        ("BDAT 0 LAST", bdat(0, true)),
        ("BDAT 0", bdat(0, false)),
        ("bdat 4999 last", bdat(4999, true)),
        ("BDAT 1 ", bdat(1, false)),
        ("BDAT 0000000000000000000000000000007", bdat(7, false)),
        ("DATA", Some(Meaning::Data)),
        ("data ", Some(Meaning::Data)),
        ("RSET", Some(Meaning::Rset)),
        ("NOOP", Some(Meaning::Noop)),
        ("NOOP with text", Some(Meaning::Noop)),
        ("VRFY journal", Some(Meaning::Vrfy)),
        ("HELP", Some(Meaning::Help)),
        ("HELP MAIL", Some(Meaning::Help)),
        ("QUIT", Some(Meaning::Quit)),
        ("STARTTLS", Some(Meaning::StartTls)),
    ] {
        assert_eq!(ours(line.as_bytes()), meaning, "ours: {line}");
        assert_eq!(theirs(line.as_bytes()), meaning, "theirs: {line}");
    }
}

/// What is wrong with smtp-proto 0.2.5 in lines: the line, our meaning, its meaning.
#[test]
fn known_bugs_in_lines_are_still_bugs() {
    let refused = None::<Meaning>;
    let rows: [(&str, &[u8], _, _); 23] = [
        (
            "a count that overflows is a small one",
            b"BDAT 99999999999999999999999 LAST",
            refused.clone(),
            bdat(999, true),
        ),
        (
            "a size that overflows is a small one",
            b"MAIL FROM:<> SIZE=99999999999999999999999",
            refused.clone(),
            mail_of_size(999),
        ),
        (
            "of two sizes the last wins",
            b"MAIL FROM:<> SIZE=1 SIZE=2",
            refused.clone(),
            mail_of_size(2),
        ),
        (
            "postmaster is nobody",
            b"RCPT TO:<postmaster>",
            rcpt("postmaster"),
            rcpt(""),
        ),
        (
            "and nobody is a recipient",
            b"RCPT TO:<>",
            refused.clone(),
            rcpt(""),
        ),
        (
            "quotes are lost",
            b"RCPT TO:<\"a b\"@x>",
            rcpt("\"a b\"@x"),
            rcpt("a b@x"),
        ),
        (
            "so that there are two @",
            b"RCPT TO:<\"a@b\"@x>",
            rcpt("\"a@b\"@x"),
            rcpt("a@b@x"),
        ),
        (
            "no address literal",
            b"RCPT TO:<a@[127.0.0.1]>",
            rcpt("a@[127.0.0.1]"),
            refused.clone(),
        ),
        (
            "nor of IPv6",
            b"MAIL FROM:<a@[IPv6:::1]>",
            mail("a@[IPv6:::1]"),
            refused.clone(),
        ),
        ("no domain", b"RCPT TO:<a@>", refused.clone(), rcpt("a@")),
        (
            "a hyphen first",
            b"RCPT TO:<a@-x>",
            refused.clone(),
            rcpt("a@-x"),
        ),
        (
            "a dot last",
            b"RCPT TO:<a@x.example.>",
            refused.clone(),
            rcpt("a@x.example."),
        ),
        (
            "octets that are no UTF-8 are replaced",
            b"RCPT TO:<\xff@x>",
            refused.clone(),
            rcpt("\u{fffd}@x"),
        ),
        (
            "CR is skipped",
            b"NO\rOP",
            refused.clone(),
            Some(Meaning::Noop),
        ),
        (
            "even in an address",
            b"RCPT TO:<a\r@x>",
            refused.clone(),
            rcpt("a@x"),
        ),
        (
            "LF ends a line",
            b"NOOP\nQUIT",
            refused.clone(),
            Some(Meaning::Noop),
        ),
        (
            "DATA has an argument",
            b"DATA now",
            refused.clone(),
            Some(Meaning::Data),
        ),
        (
            "QUIT has an argument",
            b"QUIT now",
            refused.clone(),
            Some(Meaning::Quit),
        ),
        (
            "RSET has an argument",
            b"RSET now",
            refused.clone(),
            Some(Meaning::Rset),
        ),
        (
            "STARTTLS has an argument",
            b"STARTTLS now",
            refused.clone(),
            Some(Meaning::StartTls),
        ),
        (
            "two names",
            b"EHLO a b",
            refused.clone(),
            Some(Meaning::Ehlo),
        ),
        (
            "two blanks before a name",
            b"EHLO  c",
            Some(Meaning::Ehlo),
            refused.clone(),
        ),
        (
            "UTF-8 without SMTPUTF8",
            "MAIL FROM:<ü@x>".as_bytes(),
            refused,
            mail("ü@x"),
        ),
    ];
    for (name, line, our_meaning, their_meaning) in rows {
        assert_eq!(ours(line), our_meaning, "ours: {name}");
        assert_eq!(theirs(line), their_meaning, "theirs: {name}");
        assert_ne!(our_meaning, their_meaning, "{name}");
    }
}

/// What is wrong with it in content: the octets after 354, and the content until the end, if it
/// comes, for us and for it.
#[test]
fn known_bugs_in_content_are_still_bugs() {
    for (name, octets, our_content, their_content) in [
        ("an empty message does not end", ".\r\n", Some(""), None),
        (
            "the first line stays stuffed",
            "..x\r\n.\r\n",
            Some(".x\r\n"),
            Some("..x\r\n"),
        ),
        (
            "CR before CRLF ends it",
            "a\r\n.\r\r\n",
            None,
            Some("a\r\n\r"),
        ),
    ] {
        let mut bare = Bare::new(clear_settings());
        bare.send("EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<journal@mx.example>\r\nDATA\r\n");
        bare.send(octets);
        let content = bare.has(&Did::Ended).then(|| bare.content());
        assert_eq!(
            content.as_deref(),
            our_content.map(str::as_bytes),
            "ours: {name}"
        );
        let mut content = Vec::new();
        let ended = DataReceiver::new().ingest(&mut octets.as_bytes().iter(), &mut content);
        let content = ended.then_some(content);
        assert_eq!(
            content.as_deref(),
            their_content.map(str::as_bytes),
            "theirs: {name}"
        );
    }
}

/// Where smtp-proto is known to be wrong about a line that we accept.
fn is_known(line: &str, meaning: &Meaning) -> bool {
    match meaning {
        Meaning::Mail { address, .. } | Meaning::Rcpt(address) => {
            address.contains(['"', '[']) || address == "postmaster" || address.len() > 256
        }
        Meaning::Ehlo | Meaning::Helo => line.contains("  "),
        _ => false,
    }
}

fn line() -> impl Strategy<Value = String> {
    let address = r#"(@[a-c.]{1,4}:)?[a-c.!_"\\ ü]{0,5}@[a-c.\-_ä]{0,6}|postmaster|"a b"@c|a@\[(1\.2\.3\.4|IPv6:::1)\]|"#;
    let parameters =
        "( (SIZE=[0-9]{0,5}|BODY=(7BIT|8bitmime|BINARYMIME|x)|SMTPUTF8|smtputf8|X=y)){0,3}";
    prop_oneof![
        4 => (address, parameters).prop_map(|(a, p)| format!("MAIL FROM:<{a}>{p}")),
        2 => address.prop_map(|address| format!("RCPT TO:<{address}>")),
        2 => "(BDAT|bdat) {1,2}[0-4]{0,4}( {1,2}(LAST|last|x)){0,2} ?",
        2 => "(EHLO|HELO|DATA|RSET|NOOP|VRFY|HELP|QUIT|STARTTLS|EXPN|FROB|data|rSet)( [a-c.ü]{0,4}){0,2}",
        1 => "(MAIL FROM|RCPT TO)[:<>a@x ]{0,8}",
        1 => "[A-Za-z<>:@ ]{0,20}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_we_accept_it_accepts(line in line()) {
        if let Some(mut expected) = ours(line.as_bytes()).filter(|meaning| !is_known(&line, meaning)) {
            if let Meaning::Mail { size, .. } = &mut expected {
                *size = size.filter(|octets| *octets > 0);
            }
            prop_assert_eq!(theirs(line.as_bytes()), Some(expected));
        }
    }
}
