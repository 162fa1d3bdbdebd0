//! How fast journal reports are read, on one core: `parse [SECONDS]`, one line a kind of report.
//!
//! `boundaries` is the scan for boundary lines alone (the octets are in a part that nobody reads),
//! `headers` a report whose journaled message is nearly all header, the others are read in full: hashes
//! of every part, URLs of every text.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use clawback::journal::{Kind, Limits, parse};

fn main() {
    let seconds = std::env::args().nth(1).map_or(1.0, |text| {
        text.parse().expect("a number of seconds, 1 by default")
    });
    println!("{:<22}{:>10}{:>12}{:>14}", "reports", "octets", "MB/s", "reports/s");
    for (name, report) in [
        ("8 KiB", report(&message(2_000, 1_500, 2_500), "")),
        ("100 KiB", report(&message(8_000, 22_000, 70_000), "")),
        ("100 KiB, all HTML", report(&message(8_000, 92_000, 0), "")),
        ("1 MiB, attachment", report(&message(20_000, 4_000, 1_024_000), "")),
        ("70 kB, headers", report(&message(68_000, 500, 0), "")),
        ("1 MiB, boundaries", report(&message(500, 500, 0), &base64(1 << 20))),
        ("500 recipients", recipients(500)),
    ] {
        let limits = Limits::default();
        assert_eq!(parse(report.as_bytes(), limits.clone()).kind, Kind::Report);
        let (start, mut count) = (Instant::now(), 0_u32);
        while start.elapsed() < Duration::from_secs_f64(seconds) {
            for _ in 0..16 {
                let read = parse(std::hint::black_box(report.as_bytes()), limits.clone());
                std::hint::black_box(read);
                count += 1;
            }
        }
        let rate = f64::from(count) / start.elapsed().as_secs_f64();
        let megabytes = rate * report.len() as f64 / 1e6;
        println!("{name:<22}{:>10}{megabytes:>12.0}{rate:>14.0}", report.len());
    }
}

const ENVELOPE: &str = "Sender: billing@tailspin.example\r\nSubject: Invoice 4711\r\n\
    Message-Id: <CAKq1@mail.tailspin.example>\r\n";

/// A report with this journaled message, and with a part behind it that does not count.
fn report(message: &str, ignored: &str) -> String {
    let mut recipients = String::new();
    for name in ["dana", "archive-bcc", "lee", "omar"] {
        let _ = write!(recipients, "Recipient: {name}@northwind.example\r\n");
    }
    let ignored = if ignored.is_empty() {
        String::new()
    } else {
        format!("\r\n--_a1b2c3d4-0001-4001-8001-000000000001_\r\nContent-Type: a/b\r\n\r\n{ignored}")
    };
    whole(&recipients, &format!("{message}{ignored}"))
}

fn recipients(count: usize) -> String {
    let mut recipients = String::new();
    for number in 0..count {
        let _ = write!(
            recipients,
            "To: person{number}@northwind.example, Expanded: staff@northwind.example\r\n"
        );
    }
    whole(&recipients, &message(2_000, 500, 0))
}

fn whole(recipients: &str, message: &str) -> String {
    let boundary = "_a1b2c3d4-0001-4001-8001-000000000001_";
    format!(
        "Content-Type: multipart/mixed;\r\n\tboundary=\"{boundary}\"\r\nSubject: Invoice 4711\r\n\
         To: Dana Reyes <dana@northwind.example>\r\nFrom: Billing <billing@tailspin.example>\r\n\
         MIME-Version: 1.0\r\nSender:\r\n\t<MicrosoftExchange329e71ec88ae4615bbc36ab6ce41109e@northwind.onmicrosoft.example>\r\n\
         Message-ID: <3d1f0c51-1111-4222-8333-944444444444@journal.report.generator>\r\n\
         Date: Mon, 06 Jul 2026 08:00:01 +0000\r\nX-MS-PublicTrafficType: Email\r\nX-MS-Journal-Report:\r\n\
         X-MS-Exchange-Parent-Message-Id:\r\n\t<CAKq1@mail.tailspin.example>\r\nAuto-Submitted: auto-generated\r\n\
         X-MS-Exchange-Generated-Message-Source: Journal Agent\r\n\
         X-LD-Processed: 9f8e7d6c-0000-4000-8000-000000000001,ExtAddr\r\n\
         X-OriginatorOrg: northwind.onmicrosoft.example\r\n\r\n\
         --{boundary}\r\nContent-Type: text/plain; charset=\"us-ascii\"\r\n\
         Content-Transfer-Encoding: 7bit\r\n\r\n{ENVELOPE}{recipients}\r\n\
         --{boundary}\r\nContent-Type: message/rfc822\r\n\r\n{message}\r\n--{boundary}--\r\n"
    )
}

/// A message with so many octets of header, of quoted-printable HTML and of base64.
fn message(header: usize, html: usize, attachment: usize) -> String {
    let mut message = String::from(
        "From: Billing <billing@tailspin.example>\r\nTo: Dana Reyes <dana@northwind.example>\r\n\
         Subject: Invoice 4711\r\nDate: Mon, 06 Jul 2026 08:00:00 +0000\r\n\
         Message-ID: <CAKq1@mail.tailspin.example>\r\n\
         X-MS-Exchange-Organization-Network-Message-Id: 0a1b2c3d-0001-4001-8001-0123456789ab\r\n",
    );
    let start = message.len();
    for number in 0.. {
        if message.len() - start >= header {
            break;
        }
        let _ = write!(message, "X-Antispam-Report-{number}: CIP:255.255.255.255;CTRY:;LANG:en;SCL:1;SRV:;IPV:NLI;\r\n");
        for _ in 0..4 {
            message.push_str("\tSFV:NSPM;H:PAXPR04MB8989.eurprd04.prod.outlook.com;PTR:;CAT:NONE;SFS:(13230040);\r\n");
        }
    }
    message.push_str(
        "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"outer\"\r\n\r\n--outer\r\n\
         Content-Type: text/html; charset=\"utf-8\"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n",
    );
    let start = message.len();
    for number in 0.. {
        if message.len() - start >= html {
            break;
        }
        let _ = write!(
            message,
            "<tr><td style=3D\"padding:0 12px;color:#333333;font-family:Segoe UI\">=\r\n\
             Position {number}: Wartung und Pflege, n=C3=A4chster Termin nach Absprache=\r\n</td><td>\
             <a href=3D\"https://www.shop{}.example/order?id=3D{number}&amp;lang=3Dde\">mehr</a></td></tr>\r\n",
            number % 40
        );
    }
    if attachment > 0 {
        message.push_str(
            "\r\n--outer\r\nContent-Type: application/pdf; name=\"invoice.pdf\"\r\n\
             Content-Disposition: attachment; filename=\"invoice.pdf\"\r\n\
             Content-Transfer-Encoding: base64\r\n\r\n",
        );
        message.push_str(&base64(attachment));
    }
    message.push_str("\r\n--outer--\r\n");
    message
}

/// So many octets of base64 in lines.
fn base64(octets: usize) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut text, mut state) = (String::with_capacity(octets), 0x9e37_79b9_7f4a_7c15_u64);
    while text.len() < octets {
        for _ in 0..76 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            text.push(char::from(LETTERS[(state >> 58) as usize]));
        }
        text.push_str("\r\n");
    }
    text
}
