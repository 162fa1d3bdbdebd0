//! Reports made to hurt: each is read in bounded time and memory, and says what it can.

use std::fmt::Write as _;

use clawback::journal::{Inner, Kind, Limits, Report, Scanner, Stage, parse};

const BOUNDARY: &str = "_a1b2c3d4-0001-4001-8001-000000000001_";
const MIB: usize = 1 << 20;
/// Octets of most of what follows: enough that what grows with the square of it does not end.
const SIZE: usize = MIB / 4;

fn outer() -> String {
    format!(
        "Content-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\r\nX-MS-Journal-Report:\r\n\
         Message-ID: <1@journal.report.generator>\r\nMIME-Version: 1.0\r\n\r\n"
    )
}

/// A report with these envelope lines after the first three, and this journaled message.
fn report(lines: &str, message: &str) -> String {
    format!(
        "{}--{BOUNDARY}\r\nContent-Type: text/plain\r\n\r\nSender: a@x.example\r\nSubject: s\r\n\
         Message-Id: <1@x.example>\r\n{lines}\r\n--{BOUNDARY}\r\nContent-Type: message/rfc822\r\n\r\n\
         {message}\r\n--{BOUNDARY}--\r\n",
        outer()
    )
}

const TO: &str = "To: b@y.example\r\n";
const FACTS: &str = "From: A <a@x.example>\r\nSubject: s\r\nDate: Mon, 06 Jul 2026 08:00:00 +0000\r\n\
    Message-ID: <1@x.example>\r\nMIME-Version: 1.0\r\n";

/// What reading a report twice may take: a dozen times what the slowest of them takes in a debug build. The
/// square of [`SIZE`] is 70 billion steps, which take longer one at a time.
const PROCESSOR_SECONDS: i64 = 20;

/// Seconds of processor time that this thread has used: unlike the time that passes, other load does not add to it.
/// How often an octet is looked at cannot be counted from outside, as the loops that look are in many places, those
/// of `memchr` and `mail-parser` among them.
fn processor_time() -> i64 {
    rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).tv_sec
}

/// Reads it whole and in pieces: the same, and in bounded time.
fn read(name: &str, octets: &str) -> (Report, usize) {
    let start = processor_time();
    let whole = parse(octets.as_bytes(), Limits::default());
    let mut scanner = Scanner::new(Limits::default());
    let (mut memory, mut recipients) = (0, Vec::new());
    for piece in octets.as_bytes().chunks(4093) {
        scanner.handle_octets(piece);
        memory = memory.max(scanner.memory());
        recipients.extend(scanner.take_recipients());
    }
    let mut pieces = scanner.finish();
    if pieces.kind == Kind::Report {
        recipients.append(&mut pieces.recipients);
        pieces.recipients = recipients;
    }
    let spent = processor_time() - start;
    assert!(spent < PROCESSOR_SECONDS, "{name}: {spent} s");
    assert_eq!(pieces, whole, "{name}");
    (whole, memory)
}

fn repeat(text: &str) -> String {
    text.repeat(SIZE / text.len())
}

#[test]
fn any_journaled_message_is_read_in_bounded_time_and_memory() {
    let text = |header: &str, body: &str| format!("{FACTS}{header}\r\n{body}");
    let html = |body: &str| text("Content-Type: text/html\r\n", body);
    let encoded = |encoding: &str, body: &str| {
        text(&format!("Content-Transfer-Encoding: {encoding}\r\n"), body)
    };
    let in_header = |field: &str| text(field, "");
    let multipart = "Content-Type: multipart/mixed; boundary=b\r\n";
    let mut nested = String::new();
    for level in 0..8_000 {
        let _ = write!(
            nested,
            "Content-Type: multipart/mixed; boundary=b{level}\n\n--b{level}\n"
        );
    }
    for (name, message) in [
        ("many fields", in_header(&"A: b\r\n".repeat(37_000))),
        ("nested multiparts", text("", &nested)),
        (
            "nested messages",
            format!("{FACTS}{}", repeat("Content-Type: message/rfc822\r\n\r\n")),
        ),
        ("empty parts", text(multipart, &repeat("--b\r\n\r\n"))),
        (
            "parts without an empty line",
            text(multipart, &repeat("--b\n")),
        ),
        ("closing boundaries", text(multipart, &repeat("--b--\n"))),
        ("look-alikes", text(multipart, &repeat("--bc\n"))),
        ("dashes", text(multipart, &repeat("--\n"))),
        (
            "endless dash line",
            text(multipart, &format!("\n--{}", repeat("b"))),
        ),
        ("line feeds", text("", &repeat("\n"))),
        ("carriage returns", text("", &repeat("\r"))),
        (
            "encoded words",
            in_header(&format!("X: {}\r\n", "=?utf-8?Q?=41?= ".repeat(15_000))),
        ),
        (
            "giant encoded word",
            in_header(&format!(
                "Subject: =?utf-8?Q?{}?=\r\n",
                "=41".repeat(75_000)
            )),
        ),
        (
            "open encoded words",
            in_header(&format!("Subject: {}\r\n", "=?utf-8?Q?a ".repeat(20_000))),
        ),
        (
            "encoded words in encoded words",
            in_header(&format!("Subject: {}\r\n", "=?utf-8?B?".repeat(22_000))),
        ),
        (
            "brackets in From",
            format!("From: {}\r\n{FACTS}", "<(\"".repeat(75_000)),
        ),
        (
            "words in From",
            format!("From: {}\r\n{FACTS}", "=?a?q?".repeat(37_000)),
        ),
        (
            "digits in Date",
            format!("Date: {}\r\n{FACTS}", "1".repeat(225_000)),
        ),
        (
            "references",
            in_header(&format!("References: {}\r\n", "<a@b>".repeat(120_000))),
        ),
        (
            "different references",
            in_header(
                &((0..20_000).fold("References:".to_owned(), |mut text, n| {
                    let _ = write!(text, " <{n}@b>");
                    text
                }) + "\r\n"),
            ),
        ),
        (
            "reference fields",
            in_header(&"In-Reply-To: <a@b>\r\n".repeat(11_000)),
        ),
        (
            "parameters",
            in_header(&format!(
                "Content-Type: a/b{}\r\n",
                ";name*0=b".repeat(100_000)
            )),
        ),
        (
            "comments",
            in_header(&format!(
                "Content-Type: a/b; c=d {}\r\n",
                " (".repeat(112_000)
            )),
        ),
        (
            "closed comments",
            in_header(&format!(
                "Content-Type: a/b; c=d{}\r\n",
                " (x)".repeat(50_000)
            )),
        ),
        (
            "open quotes",
            in_header(&format!(
                "Content-Type: a/b; c={}\r\n",
                "\"\\".repeat(112_000)
            )),
        ),
        (
            "continuation lines",
            in_header(&format!(
                "Content-Type: a/b{}\r\n",
                ";\r\n a=b".repeat(27_000)
            )),
        ),
        ("ampersands", html(&repeat("&"))),
        ("character references", html(&repeat("&#"))),
        ("schemes", html(&repeat("http:"))),
        ("schemes and slashes", html(&repeat("http://"))),
        ("slashes", html(&format!("http:{}", repeat("/")))),
        ("quoted slashes", html(&repeat("\"//"))),
        ("colons", text("", &repeat("s:"))),
        ("www", text("", &repeat("WW.www."))),
        ("userinfo", text("", &repeat("http://a@"))),
        (
            "endless host",
            text("", &format!("http://{}", repeat("a."))),
        ),
        ("percent", text("", &repeat("http://%41%"))),
        (
            "wrappers",
            text(
                "",
                &repeat("http://a.safelinks.protection.outlook.com/?url=http%3A%2F%2F"),
            ),
        ),
        (
            "hosts",
            text(
                "",
                &(0..15_000).fold(String::new(), |mut text, n| {
                    let _ = write!(text, "http://h{n}.example ");
                    text
                }),
            ),
        ),
        ("equals signs", encoded("quoted-printable", &repeat("="))),
        (
            "soft line breaks",
            encoded("quoted-printable", &repeat("=\r\n")),
        ),
        (
            "soft line breaks after dashes",
            encoded("quoted-printable", &repeat("--a=\r\n")),
        ),
        (
            "blanks after an equals sign",
            encoded("quoted-printable", &repeat("=     ")),
        ),
        ("padding", encoded("base64", &repeat("=A"))),
        ("no base64", encoded("base64", &repeat("!"))),
    ] {
        let (report, memory) = read(name, &report(TO, &message));
        assert_eq!(report.kind, Kind::Report, "{name}");
        assert_eq!(report.inner.size, message.len() as u64, "{name}");
        assert_eq!(report.recipients.len(), 1, "{name}");
        assert!(report.inner.content_digest.is_some(), "{name}");
        assert!(report.inner.references.len() <= 1000, "{name}");
        assert!(memory < 3 * MIB, "{name}: {memory} octets");
    }
}

#[test]
fn any_envelope_is_read_in_bounded_time_and_memory() {
    for (name, line) in [
        ("long line", format!("X: {}\r\n", "a".repeat(4 * MIB))),
        ("long subject", format!("Subject: {}\r\n", repeat("a"))),
        (
            "long recipient",
            format!("To: {}@x.example\r\n", repeat("a")),
        ),
        (
            "commas",
            format!("To: a@x.example{}\r\n", ", ".repeat(120_000)),
        ),
        (
            "redirections",
            format!("To: a b@x.example{}\r\n", ", Expanded:".repeat(23_000)),
        ),
        (
            "continuation lines",
            format!("Label: a\r\n{}", repeat(" b\r\n")),
        ),
        ("carriage returns", format!("Label: a{}\r\n", repeat("\r"))),
        ("bad recipients", repeat("To: nobody\r\n")),
        ("lines", repeat("a\r\n")),
        ("NULs", format!("Label: a{}\r\n", repeat("\0"))),
    ] {
        let (report, memory) = read(name, &report(&format!("{line}{TO}"), FACTS));
        assert_eq!(report.kind, Kind::Report, "{name}");
        assert!(
            report
                .recipients
                .iter()
                .any(|r| r.address.as_str() == "b@y.example"),
            "{name}"
        );
        assert!(report.problems.len() < 50, "{name}");
        assert!(memory < 3 * MIB, "{name}: {memory} octets");
    }
}

#[test]
fn recipients_are_handed_out_as_they_stream_by() {
    let mut lines = String::new();
    for number in 0..100_000 {
        let _ = write!(
            lines,
            "To: p{number}@y.example, Expanded: staff@y.example\r\n"
        );
    }
    let octets = report(&lines, FACTS);
    let (whole, memory) = read("100,000 recipients", &octets);
    assert_eq!(
        (whole.recipients.len(), whole.recipient_count),
        (100_000, 100_000)
    );
    assert!(memory < 8 * MIB, "{memory} octets");
    let (over, _) = read("one more", &report(&format!("{lines}{TO}"), FACTS));
    assert_eq!(over.kind, Kind::Malformed);
    assert_eq!((over.recipients.len(), over.recipient_count), (0, 0));
    assert!(
        over.problems
            .concat()
            .contains("more than 100000 recipients")
    );
}

/// What a report makes us keep is accounted for, so that all sessions together stay within their bound.
#[test]
fn what_is_kept_is_accounted_for() {
    const LONG: usize = 200_000;
    let long = "a".repeat(LONG);
    let mut lines = String::new();
    for number in 0..500 {
        let path = "x".repeat(1900);
        let _ = write!(
            lines,
            "To: p{number}@y.example, Expanded: {path}@x, Forwarded: {path}@y\r\n"
        );
    }
    let header = |text: &str, attachments: usize| {
        let mut message = format!("{text}Content-Type: multipart/mixed; boundary=b\r\n\r\n");
        for number in 0..attachments {
            let name = "n".repeat(240);
            let _ = write!(
                message,
                "--b\r\nContent-Type: a/b; name={number}{name}\r\n\r\n"
            );
        }
        message
    };
    let long_fields =
        format!("Subject: {long}\r\nMessage-ID: <{long}@x>\r\nReferences: <{long}@y>\r\n");
    for (name, octets, kept) in [
        ("recipients", report(&lines, ""), 500 * 3800),
        ("label", report(&format!("Label: {long}\r\n{TO}"), ""), LONG),
        (
            "sender",
            report(&format!("On-Behalf-Of: {long}\r\n{TO}"), ""),
            LONG,
        ),
        (
            "outer header",
            format!(
                "X-MS-Exchange-Parent-Message-Id: <{long}>\r\n{}",
                report(TO, "")
            ),
            LONG,
        ),
        (
            "inner header",
            report(TO, &header(&long_fields, 0)),
            3 * LONG,
        ),
        ("attachments", report(TO, &header(FACTS, 900)), 900 * 240),
    ] {
        let end = octets.rfind("\r\n--").expect("a boundary");
        let mut scanner = Scanner::new(Limits::default());
        let memory = |scanner: &Scanner| scanner.memory();
        let before = memory(&scanner);
        scanner.handle_octets(&octets.as_bytes()[..end]);
        let held = memory(&scanner) - before;
        assert!(held >= kept, "{name}: {held} octets");
        let report = scanner.finish();
        assert_eq!(report.kind, Kind::Report, "{name}");
    }
}

#[test]
fn an_outer_header_over_the_bound_is_malformed() {
    let octets = format!("{}{}", "A: b\r\n".repeat(10 * MIB / 6), report(TO, FACTS));
    let (report, memory) = read("10 MiB", &octets);
    assert_eq!(report.kind, Kind::Malformed);
    assert!(report.problems.concat().contains("outer header"));
    assert!(memory < MIB, "{memory} octets");
}

#[test]
fn an_inner_header_over_the_bound_leaves_the_envelope() {
    let message = format!(
        "{FACTS}{}\r\nhttps://x.example/",
        "A: b\r\n".repeat(10 * MIB / 6)
    );
    let (report, memory) = read("10 MiB", &report(TO, &message));
    assert_eq!(report.kind, Kind::Report);
    assert_eq!(report.envelope.message_id.unwrap().as_str(), "1@x.example");
    assert_eq!(report.recipients.len(), 1);
    let expected = Inner {
        present: true,
        partly_read: true,
        size: message.len() as u64,
        ..Inner::default()
    };
    assert_eq!(report.inner, expected);
    assert!(memory < 3 * MIB, "{memory} octets");
}

#[test]
fn a_part_header_over_the_bound_is_told() {
    let part = "Content-Type: message/rfc822\r\n";
    let octets = report(TO, FACTS).replace(part, &format!("X: {}\r\n{part}", repeat("a")));
    let (report, _) = read("part header", &octets);
    assert_eq!((report.kind, report.inner.present), (Kind::Report, false));
    assert!(
        report
            .problems
            .concat()
            .contains("header of a part is too long")
    );
}

#[test]
fn a_large_attachment_costs_no_memory() {
    let start = report(TO, "");
    let (start, _) = start.split_at(start.len() - BOUNDARY.len() - 8);
    let mut scanner = Scanner::new(Limits::default());
    scanner.handle_octets(start.as_bytes());
    assert_eq!(scanner.stage(), Stage::Journaled);
    let header =
        format!("{FACTS}Content-Type: a/b; name=c\r\nContent-Transfer-Encoding: base64\r\n\r\n");
    scanner.handle_octets(header.as_bytes());
    let line = format!("{}\r\n", "QUJD".repeat(19)).repeat(800);
    for _ in 0..128 {
        scanner.handle_octets(line.as_bytes());
        assert!(scanner.memory() < 64 << 10, "{}", scanner.memory());
    }
    let report = scanner.finish();
    assert_eq!(report.inner.size, (header.len() + 128 * line.len()) as u64);
    assert_eq!(report.inner.attachments.len(), 1);
}

/// What two journaled messages have in common.
fn digest(message: &str) -> [u8; 32] {
    let report = parse(report(TO, message).as_bytes(), Limits::default());
    report.inner.content_digest.expect(message)
}

#[test]
fn the_content_digest_is_of_the_content() {
    let message = |header: &str, boundary: &str, parts: &[(&str, &str)]| {
        let mut text = format!(
            "{FACTS}{header}Content-Type: multipart/mixed; boundary={boundary}\r\n\r\npre\r\n"
        );
        for (header, body) in parts {
            let _ = write!(text, "--{boundary}\r\n{header}\r\n{body}\r\n");
        }
        let _ = write!(text, "--{boundary}--\r\nepilogue\r\n");
        text
    };
    let html = "Content-Type: text/html\r\n";
    let pdf = "Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n";
    let attached = "Content-Type: message/rfc822\r\n";
    let first = digest(&message(
        "",
        "b",
        &[
            (html, "<p>\u{e9}=1</p>"),
            (pdf, "aGVsbG8="),
            (attached, "A: b\r\n\r\nc"),
        ],
    ));
    let quoted =
        "Content-Transfer-Encoding: quoted-printable\r\nContent-Type: text/html\r\nX: y\r\n";
    for (name, same) in [
        (
            "header and boundary",
            message(
                "X-Hop: 2\r\n",
                "c",
                &[
                    (html, "<p>\u{e9}=1</p>"),
                    (pdf, "aGVsbG8="),
                    (attached, "A: b\r\n\r\nc"),
                ],
            ),
        ),
        (
            "encodings",
            message(
                "",
                "b",
                &[
                    (quoted, "<p>=C3=A9=\r\n=3D1</p>\r\n"),
                    (pdf, "aGVs\r\nbG8"),
                    (attached, "A: b\r\n\r\nc"),
                ],
            ),
        ),
        (
            "no multipart in between",
            message(
                "",
                "b",
                &[
                    (
                        "Content-Type: multipart/alternative; boundary=d\r\n",
                        "--d\r\nContent-Type: text/html\r\n\r\n<p>\u{e9}=1</p>\r\n--d--",
                    ),
                    (pdf, "aGVsbG8="),
                    (attached, "A: b\r\n\r\nc"),
                ],
            ),
        ),
    ] {
        assert_eq!(digest(&same), first, "{name}");
    }
    for (name, other) in [
        (
            "text",
            message(
                "",
                "b",
                &[
                    (html, "<p>\u{e9}=2</p>"),
                    (pdf, "aGVsbG8="),
                    (attached, "A: b\r\n\r\nc"),
                ],
            ),
        ),
        (
            "attachment",
            message(
                "",
                "b",
                &[
                    (html, "<p>\u{e9}=1</p>"),
                    (pdf, "aGVsbG4="),
                    (attached, "A: b\r\n\r\nc"),
                ],
            ),
        ),
        (
            "attached message",
            message(
                "",
                "b",
                &[
                    (html, "<p>\u{e9}=1</p>"),
                    (pdf, "aGVsbG8="),
                    (attached, "A: b\r\n\r\nd"),
                ],
            ),
        ),
        (
            "its header",
            message(
                "",
                "b",
                &[
                    (html, "<p>\u{e9}=1</p>"),
                    (pdf, "aGVsbG8="),
                    (attached, "A: c\r\n\r\nc"),
                ],
            ),
        ),
        (
            "order",
            message(
                "",
                "b",
                &[
                    (pdf, "aGVsbG8="),
                    (html, "<p>\u{e9}=1</p>"),
                    (attached, "A: b\r\n\r\nc"),
                ],
            ),
        ),
        (
            "one part less",
            message("", "b", &[(html, "<p>\u{e9}=1</p>"), (pdf, "aGVsbG8=")]),
        ),
        (
            "an empty part more",
            message(
                "",
                "b",
                &[
                    (html, "<p>\u{e9}=1</p>"),
                    (pdf, "aGVsbG8="),
                    (attached, "A: b\r\n\r\nc"),
                    ("", ""),
                ],
            ),
        ),
    ] {
        assert_ne!(digest(&other), first, "{name}");
    }
}

#[test]
fn beyond_a_bound_the_digest_still_covers_everything() {
    let nested = |depth: usize, end: &str| {
        let mut text = FACTS.to_owned();
        for level in 0..depth {
            let _ = write!(
                text,
                "Content-Type: multipart/mixed; boundary=b{level}x\r\n\r\n--b{level}x\r\n"
            );
        }
        format!("{text}\r\n{end}")
    };
    let parts = |count: usize, end: &str| {
        format!(
            "{FACTS}Content-Type: multipart/mixed; boundary=b\r\n\r\n{}--b\r\n\r\n{end}",
            "--b\r\n\r\nx\r\n".repeat(count)
        )
    };
    let header = |end: &str| {
        format!(
            "{FACTS}Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nX: {}\r\n\r\n{end}",
            "x".repeat(70_000)
        )
    };
    for (name, make, partly) in [
        (
            "64 levels",
            Box::new(|end: &str| nested(64, end)) as Box<dyn Fn(&str) -> String>,
            false,
        ),
        ("65 levels", Box::new(|end: &str| nested(65, end)), true),
        (
            "100,000 levels",
            Box::new(|end: &str| nested(100_000, end)),
            true,
        ),
        ("1,000 parts", Box::new(|end: &str| parts(999, end)), false),
        ("1,001 parts", Box::new(|end: &str| parts(1000, end)), true),
        ("header of a part", Box::new(header), true),
    ] {
        let message = make("one https://x.example/");
        let (whole, _) = read(name, &report(TO, &message));
        assert_eq!(whole.inner.partly_read, partly, "{name}");
        let urls: &[&str] = if partly { &[] } else { &["x.example"] };
        assert_eq!(whole.inner.url_domains, urls, "{name}");
        assert_eq!(whole.inner.size, message.len() as u64, "{name}");
        assert_ne!(digest(&message), digest(&make("two")), "{name}");
    }
}
