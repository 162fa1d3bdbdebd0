//! Journal reports as Exchange Online writes them ([MS-XJRNL] 2.1, and captured reports).

use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use uuid::Uuid;

use super::compose;
use crate::mailbox::Message;
use crate::random::{self, Random};
use crate::settings::Journaling;

/// The field of a recipient line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    /// Addressed in `To`, from inside.
    To,
    /// Addressed in `Cc`, from inside.
    Cc,
    /// Addressed in `Bcc`, from inside.
    Bcc,
    /// From outside, whatever the header says.
    Recipient,
}

/// A recipient line of the envelope part.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// Its field.
    pub(crate) field: Field,
    /// Whose mailbox the message went to.
    pub(crate) address: Box<str>,
    /// The group that it came from.
    pub(crate) expanded: Option<Box<str>>,
    /// The mailbox that forwarded.
    pub(crate) forwarded: Option<Box<str>>,
}

/// A journal report that waits to be sent; it is written when its turn comes.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    /// Names the report.
    pub(crate) guid: Uuid,
    /// What it reports.
    pub(crate) message: Arc<Message>,
    /// Which fork of the message.
    pub(crate) fork: u16,
    /// The recipients of the fork.
    pub(crate) lines: Vec<Line>,
    /// When the report was made.
    pub(crate) date: Timestamp,
    /// Whether a decrypted message is attached besides.
    pub(crate) protected: bool,
}

/// What reports say about the tenant.
#[derive(Debug, Clone)]
pub(crate) struct Stamps {
    /// The tenant's GUID.
    pub(crate) tenant_id: String,
    /// The initial domain.
    pub(crate) initial_domain: String,
    /// How reports are written.
    pub(crate) journaling: Journaling,
}

/// A host name of Exchange Online.
const HOST: &str = "BN8PR12MB3101";

impl Report {
    /// The octets of the report.
    pub(crate) fn write(&self, stamps: &Stamps) -> Vec<u8> {
        let boundary = format!("_{}_", random::guid(3, &self.guid.to_string(), 0));
        let mut text = self.outer_header(stamps, &boundary);
        let _ = write!(text, "\r\n--{boundary}\r\n");
        text.push_str(&self.envelope_part());
        let mut octets = text.into_bytes();
        let header = self.stamped_header(stamps);
        let message = &self.message.octets;
        let protected = protected_message(message);
        let attached: &[&[u8]] = if self.protected {
            &[&protected, message]
        } else {
            &[message]
        };
        for message in attached {
            octets.reserve(message.len() + header.len() + 128);
            octets.extend_from_slice(
                format!("\r\n--{boundary}\r\nContent-Type: message/rfc822\r\n\r\n").as_bytes(),
            );
            octets.extend_from_slice(header.as_bytes());
            octets.extend_from_slice(message);
        }
        octets.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        octets
    }

    fn outer_header(&self, stamps: &Stamps, boundary: &str) -> String {
        let domain = &stamps.initial_domain;
        let mut text = format!(
            "Received: from {HOST}.namprd12.prod.outlook.com ([fe80::3d1f]) by\r\n {HOST}.namprd12.prod.outlook.com ([fe80::3d1f%5]) with mapi id 15.20;\r\n {}\r\n",
            compose::rfc2822(self.date)
        );
        let _ = write!(
            text,
            "Content-Type: multipart/mixed;\r\n\tboundary=\"{boundary}\"\r\n"
        );
        for wanted in ["subject", "to", "cc", "from"] {
            for (name, value) in copied(&self.message.octets, wanted) {
                let _ = write!(text, "{name}:{value}\r\n");
            }
        }
        let _ = write!(
            text,
            "MIME-Version: 1.0\r\nSender:\r\n\t<MicrosoftExchange329e71ec88ae4615bbc36ab6ce41109e@{domain}>\r\n\
             Message-ID: <{}@journal.report.generator>\r\nDate: {}\r\nX-MS-PublicTrafficType: Email\r\nX-MS-Journal-Report: \r\n\
             X-MS-Exchange-Parent-Message-Id:\r\n\t{}\r\nAuto-Submitted: auto-generated\r\n\
             X-MS-Exchange-Generated-Message-Source: Journal Agent\r\nX-MS-TrafficTypeDiagnostic: {HOST}:JournalingReport\r\n\
             X-LD-Processed: {},ExtAddr\r\nX-OriginatorOrg: {domain}\r\n",
            self.guid,
            compose::rfc2822(self.date),
            self.message.message_id,
            stamps.tenant_id,
        );
        if stamps.journaling.cross_tenant {
            let _ = write!(
                text,
                "X-MS-Exchange-CrossTenant-Network-Message-Id: {}\r\nX-MS-Exchange-CrossTenant-Id: {}\r\n\
                 X-MS-Exchange-CrossTenant-FromEntityHeader: Hosted\r\nX-MS-Exchange-Transport-CrossTenantHeadersStamped: {HOST}\r\n",
                random::guid(4, &self.guid.to_string(), 0),
                stamps.tenant_id,
            );
        }
        text
    }

    /// The first part, in the narrowest charset that holds it.
    fn envelope_part(&self) -> String {
        let envelope = self.envelope();
        let (charset, encoding, content) = if envelope.is_ascii() {
            ("us-ascii", "7bit", envelope)
        } else if let Some(octets) = latin1(&envelope) {
            ("iso-8859-1", "quoted-printable", quoted_printable(&octets))
        } else if self.guid.as_u128().is_multiple_of(2) {
            (
                "utf-8",
                "quoted-printable",
                quoted_printable(envelope.as_bytes()),
            )
        } else {
            let lines = STANDARD.encode(&envelope);
            let lines = lines
                .as_bytes()
                .chunks(76)
                .map(|line| String::from_utf8_lossy(line).into_owned() + "\r\n");
            ("utf-8", "base64", lines.collect())
        };
        format!(
            "Content-Type: text/plain; charset=\"{charset}\"\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n{content}"
        )
    }

    /// The lines of the envelope part.
    fn envelope(&self) -> String {
        let message = &self.message;
        let mut text = String::with_capacity(256 + self.lines.len() * 64);
        let sender = message.sender.as_ref().unwrap_or(&message.from);
        let _ = write!(text, "Sender: {}\r\n", sender.address);
        if message.sender.is_some() {
            let _ = write!(text, "On-Behalf-Of: {}\r\n", message.from.address);
        }
        let _ = write!(
            text,
            "Subject: {}\r\nMessage-Id: {}\r\n",
            message.subject, message.message_id
        );
        for line in &self.lines {
            let field = match line.field {
                Field::To => "To",
                Field::Cc => "Cc",
                Field::Bcc => "Bcc",
                Field::Recipient => "Recipient",
            };
            let _ = write!(text, "{field}: {}", line.address);
            if let Some(group) = &line.expanded {
                let _ = write!(text, ", Expanded: {group}");
            }
            if let Some(mailbox) = &line.forwarded {
                let _ = write!(text, ", Forwarded: {mailbox}");
            }
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
        text
    }

    /// What Exchange put before the header of the journaled message.
    fn stamped_header(&self, stamps: &Stamps) -> String {
        let mut text = String::new();
        for (name, value) in stamp_fields(&self.message, self.fork, stamps) {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        let range = &stamps.journaling.header_octets;
        let mut random = Random::new(random::hash(5, &[self.guid.as_bytes()]));
        let wanted = range.start + random.index(range.end.saturating_sub(range.start));
        if text.len() + 100 < wanted {
            fill(&mut text, wanted, &mut random);
        }
        text
    }
}

/// The fields that Exchange adds to every message; [`Report::write`] and a copy's headers show the same.
pub(crate) fn stamp_fields(
    message: &Message,
    fork: u16,
    stamps: &Stamps,
) -> Vec<(&'static str, String)> {
    let network_message_id = message
        .forks
        .get(usize::from(fork))
        .map(Uuid::to_string)
        .unwrap_or_default();
    let date = compose::rfc2822(message.sent);
    vec![
        (
            "Received",
            format!(
                "from {HOST}.namprd12.prod.outlook.com (2603:10b6:408::1) by {HOST}.namprd12.prod.outlook.com with HTTPS; {date}"
            ),
        ),
        ("X-MS-Exchange-Organization-ExpirationStartTime", date),
        (
            "X-MS-Exchange-Organization-ExpirationInterval",
            "1:00:00:00.0000000".into(),
        ),
        (
            "X-MS-Exchange-Organization-Network-Message-Id",
            network_message_id,
        ),
        ("X-MS-Exchange-Organization-Id", stamps.tenant_id.clone()),
        (
            "X-EOPTenantAttributedMessage",
            format!("{}:0", stamps.tenant_id),
        ),
        (
            "X-MS-Exchange-Organization-AuthSource",
            format!("{HOST}.namprd12.prod.outlook.com"),
        ),
        ("X-MS-Exchange-Organization-SCL", "1".into()),
    ]
}

/// Brings `text` to about `wanted` octets with folded fields of the kind that anti-spam stamps.
fn fill(text: &mut String, wanted: usize, random: &mut Random) {
    let mut number = 0;
    while text.len() + 100 < wanted {
        let _ = write!(
            text,
            "X-Microsoft-Antispam-Message-Info-Chunk-{number}:\r\n"
        );
        number += 1;
        let end = (text.len() + 8_000).min(wanted);
        while text.len() + 80 < end {
            let octets: Vec<u8> = (0..7)
                .flat_map(|_| random.next().to_be_bytes())
                .take(54)
                .collect();
            let _ = write!(text, " {}\r\n", STANDARD.encode(octets));
        }
    }
    // A field whose value would be empty is none of Exchange's.
    if text.ends_with(":\r\n") {
        text.push_str(" =\r\n");
    }
}

/// The fields named `wanted`, with their folding, as the message has them.
fn copied(octets: &[u8], wanted: &str) -> Vec<(String, String)> {
    let header = String::from_utf8_lossy(&octets[..compose::header_end(octets)]);
    let mut found: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in header.split('\n').map(|line| line.trim_end_matches('\r')) {
        if line.starts_with([' ', '\t']) {
            if let (true, Some((_, value))) = (inside, found.last_mut()) {
                value.push_str("\r\n");
                value.push_str(line);
            }
            continue;
        }
        inside = false;
        if let Some((name, value)) = line.split_once(':')
            && name.trim().eq_ignore_ascii_case(wanted)
        {
            found.push((name.trim().to_owned(), value.to_owned()));
            inside = true;
        }
    }
    found
}

/// What a rights-protected message looks like before decryption: the same header, an unreadable attachment.
fn protected_message(octets: &[u8]) -> Vec<u8> {
    let mut protected = Vec::new();
    for (name, value) in compose::fields(octets) {
        if !name.to_ascii_lowercase().starts_with("content-")
            && !name.eq_ignore_ascii_case("mime-version")
        {
            protected.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
    }
    protected.extend_from_slice(
        b"MIME-Version: 1.0\r\nContent-Class: rpmsg.message\r\nContent-Type: multipart/mixed; boundary=\"p\"\r\n\r\n--p\r\n\
          Content-Type: text/plain\r\n\r\nThis message is protected.\r\n--p\r\n\
          Content-Type: application/x-microsoft-rpmsg-message; name=\"message.rpmsg\"\r\nContent-Transfer-Encoding: base64\r\n\r\ndgAE\r\n--p--\r\n",
    );
    protected
}

/// The octets of `text` in ISO 8859-1, if it can be written so.
fn latin1(text: &str) -> Option<Vec<u8>> {
    text.chars()
        .map(|character| u8::try_from(u32::from(character)).ok())
        .collect()
}

/// Quoted-printable (RFC 2045 §6.7) of text with CRLF line ends.
fn quoted_printable(octets: &[u8]) -> String {
    let mut text = String::with_capacity(octets.len() + octets.len() / 4);
    let mut column = 0;
    for (position, octet) in octets.iter().enumerate() {
        let at_end = matches!(octets.get(position + 1), None | Some(b'\r'));
        let written = match octet {
            b'\r' | b'\n' => char::from(*octet).to_string(),
            b'=' => "=3D".into(),
            b' ' | b'\t' if at_end => format!("={octet:02X}"),
            b' '..=b'~' | b'\t' => char::from(*octet).to_string(),
            _ => format!("={octet:02X}"),
        };
        if column + written.len() > 75 && !matches!(octet, b'\r' | b'\n') {
            text.push_str("=\r\n");
            column = 0;
        }
        column = if *octet == b'\n' {
            0
        } else {
            column + written.len()
        };
        text.push_str(&written);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_printable_lines_are_short() {
        let text = format!("Subject: {}=\r\nTo: a@x \r\n", "ü".repeat(60));
        let written = quoted_printable(&latin1(&text).unwrap());
        assert!(written.lines().all(|line| line.len() <= 76), "{written}");
        assert!(written.contains("To: a@x=20\r\n"), "{written}");
        assert!(
            written
                .replace("=\r\n", "")
                .starts_with(&format!("Subject: {}=3D\r\n", "=FC".repeat(60))),
            "{written}"
        );
    }

    #[test]
    fn copies_keep_their_folding() {
        let octets = b"to: a@x,\r\n\tb@x\r\nSubject: s\r\n t\r\n\r\nTo: body\r\n";
        assert_eq!(
            copied(octets, "to"),
            [("to".to_owned(), " a@x,\r\n\tb@x".to_owned())]
        );
    }
}
