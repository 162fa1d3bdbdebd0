//! A second opinion on envelope parts: mail-parser undoes the MIME, and the rules for lines, written
//! down once more in the plainest way, read the text that it gives.

use clawback::journal::{Field, Kind, Limits, Report, parse};
use mail_parser::{MessageParser, MimeHeaders, PartType};
use proptest::prelude::*;

/// What both must agree on.
#[derive(Debug, PartialEq)]
struct Reading {
    sender: Option<String>,
    subject: Option<String>,
    message_id: Option<String>,
    /// Field, address, group, forwarding mailbox.
    recipients: Vec<(Field, String, Option<String>, Option<String>)>,
}

fn ours(report: &Report) -> Reading {
    let text = |value: &Option<clawback::mail::Address>| value.as_ref().map(ToString::to_string);
    Reading {
        sender: text(&report.envelope.sender).or_else(|| report.envelope.sender_text.clone()),
        subject: report.envelope.subject.clone(),
        message_id: report.envelope.message_id.as_ref().map(ToString::to_string),
        recipients: report
            .recipients
            .iter()
            .map(|r| {
                (
                    r.field,
                    r.address.to_string(),
                    text(&r.expanded_from),
                    text(&r.forwarded_from),
                )
            })
            .collect(),
    }
}

/// Reads the first part's text as rules 3 to 10 say; for text whose addresses have no quotes.
fn theirs(octets: &[u8]) -> Reading {
    let message = MessageParser::default().parse(octets).unwrap();
    let part = message.parts.get(1).unwrap();
    assert!(part.is_content_type("text", "plain"));
    let PartType::Text(text) = &part.body else {
        panic!("{:?} is no text", part.body);
    };
    let mut fields: Vec<(String, String)> = Vec::new();
    let mut open = false;
    for line in text.split('\n') {
        let line = line.trim_end_matches('\r').replace('\0', "");
        let content = line.trim_matches([' ', '\t']);
        if content.is_empty() {
            if fields.is_empty() {
                continue;
            }
            break;
        }
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut().filter(|_| open) {
                *value = format!("{value} {content}").trim_start().to_owned();
            }
            continue;
        }
        let named = line.split_once(':').filter(|(name, _)| {
            let name = name.trim_end_matches([' ', '\t']);
            !name.is_empty() && !name.contains([' ', '\t'])
        });
        open = named.is_some();
        if let Some((name, value)) = named {
            let name = name.trim_end_matches([' ', '\t']).to_ascii_lowercase();
            fields.push((name, value.trim_matches([' ', '\t']).to_owned()));
        }
    }
    let first = |name: &str| {
        let field = fields.iter().find(|(field, _)| field == name);
        field
            .map(|(_, value)| value.clone())
            .filter(|value| !value.is_empty())
    };
    let mut reading = Reading {
        sender: first("sender").filter(|sender| sender != "<>"),
        subject: first("subject"),
        message_id: first("message-id")
            .map(|id| id.strip_prefix('<').unwrap_or(&id).to_owned())
            .map(|id| id.strip_suffix('>').unwrap_or(&id).to_owned())
            .filter(|id| !id.is_empty()),
        recipients: Vec::new(),
    };
    for (name, value) in &fields {
        let field = match name.as_str() {
            "to" => Field::To,
            "cc" => Field::Cc,
            "bcc" => Field::Bcc,
            "recipient" => Field::Recipient,
            _ => continue,
        };
        let (mut expanded, mut forwarded) = (None, None);
        let mut pieces = value.split(", ");
        let address = pieces.next().unwrap().to_owned();
        for piece in pieces {
            if let Some(group) = piece.strip_prefix("Expanded: ") {
                expanded = Some(group.to_owned()).filter(|group| !group.contains(' '));
            } else if let Some(mailbox) = piece.strip_prefix("Forwarded: ") {
                forwarded = Some(mailbox.to_owned()).filter(|mailbox| !mailbox.contains(' '));
            }
        }
        let valid = address
            .split_once('@')
            .is_some_and(|(a, b)| !a.is_empty() && !b.is_empty());
        let recipient = (field, address, expanded, forwarded);
        if valid && !recipient.1.contains(' ') && !reading.recipients.contains(&recipient) {
            reading.recipients.push(recipient);
        }
    }
    reading
}

/// One line of an envelope part, sound or nearly so.
fn line() -> impl Strategy<Value = String> {
    let address = "[a-d]{1,2}@[xy]\\.example|[a-d]{0,1}@x\\.example|nobody";
    prop_oneof![
        6 => ("To|Cc|Bcc|Recipient|TO|recipient", " |  |\t|", address)
            .prop_map(|(field, blank, address)| format!("{field}:{blank}{address}")),
        3 => ("To|Cc", address, "Expanded|Forwarded", "[e-g]@y\\.example")
            .prop_map(|(field, address, how, path)| format!("{field}: {address}, {how}: {path}")),
        1 => "Sender: [a-c]@x\\.example|Sender: <>|sender:",
        2 => "Subject: [ -~]{0,30}|Subject: [a-zé€漢字 ]{1,12}|Subject:",
        1 => "Message-Id: <[a-z]{1,5}@x>|Message-ID: [a-z]{1,5}@x|Message-Id: <>",
        1 => "Label: [a-z]{1,5}|X-Other : [a-z]{0,5}|no field|bad name: x",
        1 => "[ \t][a-z]{1,8}",
        1 => Just(String::new()),
    ]
}

fn encode(encoding: &str, text: &str) -> String {
    match encoding {
        "base64" => data_encoding::BASE64_MIME.encode(text.as_bytes()),
        "quoted-printable" => text
            .bytes()
            .map(|octet| match octet {
                b'=' | 0x80.. | b'a' => format!("={octet:02X}"),
                b'e' => "e=\r\n".to_owned(),
                _ => char::from(octet).to_string(),
            })
            .collect(),
        _ => text.to_owned(),
    }
}

proptest! {
    /// Whatever the envelope part says and however it is encoded, both read the same.
    #[test]
    fn both_read_the_same_envelope(
        lines in proptest::collection::vec(line(), 0..12),
        end in "\r\n|\n|\r\r\n",
        encoding in "7bit|8bit|base64|quoted-printable",
    ) {
        let mut text = lines.join(&end);
        text.push_str(&end);
        text.push_str("Recipient: last@x.example");
        text.push_str(&end);
        let body = encode(&encoding, &text);
        let octets = format!(
            "X-MS-Journal-Report:\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n\
             {body}\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nFrom: a@x\r\n\r\nx\r\n--b--\r\n"
        );
        let report = parse(octets.as_bytes(), Limits::default());
        let theirs = theirs(octets.as_bytes());
        if theirs.recipients.is_empty() {
            prop_assert_eq!(report.kind, Kind::Malformed);
        } else {
            prop_assert_eq!(report.kind, Kind::Report);
            prop_assert_eq!(ours(&report), theirs);
        }
    }
}
