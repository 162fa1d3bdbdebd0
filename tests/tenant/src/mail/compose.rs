//! Writes a message (RFC 5322, MIME) from the fields of a [`Mail`], and reads back its header.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::{Mail, Person};
use crate::random::Random;

/// The octets of the message, CRLF line ends. Bcc is not in it.
pub(crate) fn message(
    mail: &Mail,
    message_id: &str,
    date: Timestamp,
    random: &mut Random,
) -> Vec<u8> {
    let mut text = String::with_capacity(1024 + mail.body.len());
    for (name, value) in &mail.headers {
        // Exchange's header firewall: nobody but Exchange itself stamps these.
        if name
            .to_ascii_lowercase()
            .starts_with("x-ms-exchange-organization-")
        {
            continue;
        }
        let _ = write!(text, "{name}: {value}\r\n");
    }
    address_field(&mut text, "From", std::slice::from_ref(&mail.from));
    if let Some(sender) = &mail.sender {
        address_field(&mut text, "Sender", std::slice::from_ref(sender));
    }
    address_field(&mut text, "To", &mail.to);
    address_field(&mut text, "Cc", &mail.cc);
    let _ = write!(text, "Subject: {}\r\n", encoded_words(&mail.subject));
    let _ = write!(
        text,
        "Date: {}\r\nMessage-ID: {message_id}\r\n",
        rfc2822(date)
    );
    if let Some(last) = mail.references.last() {
        let _ = write!(
            text,
            "In-Reply-To: {last}\r\nReferences: {}\r\n",
            mail.references.join("\r\n\t")
        );
    }
    text.push_str("MIME-Version: 1.0\r\n");
    let mut octets = text.into_bytes();
    content(mail, &mut octets, random);
    octets
}

/// The content fields and the content: single part, alternative, mixed, as the mail needs.
fn content(mail: &Mail, octets: &mut Vec<u8>, random: &mut Random) {
    let mixed = (!mail.attachments.is_empty()).then(|| format!("_{}_", random.guid().simple()));
    if let Some(boundary) = &mixed {
        push(
            octets,
            &format!(
                "Content-Type: multipart/mixed;\r\n\tboundary=\"{boundary}\"\r\n\r\n--{boundary}\r\n"
            ),
        );
    }
    match &mail.html {
        None => text_part(octets, "plain", &mail.body),
        Some(html) => {
            let boundary = format!("_{}_", random.guid().simple());
            push(
                octets,
                &format!(
                    "Content-Type: multipart/alternative;\r\n\tboundary=\"{boundary}\"\r\n\r\n--{boundary}\r\n"
                ),
            );
            text_part(octets, "plain", &mail.body);
            push(octets, &format!("\r\n--{boundary}\r\n"));
            text_part(octets, "html", html);
            push(octets, &format!("\r\n--{boundary}--\r\n"));
        }
    }
    let Some(boundary) = mixed else { return };
    for attachment in &mail.attachments {
        let name = encoded_words(&attachment.name);
        push(
            octets,
            &format!(
                "\r\n--{boundary}\r\nContent-Type: {}; name=\"{name}\"\r\nContent-Disposition: attachment; filename=\"{name}\"\r\n\
             Content-Transfer-Encoding: base64\r\n\r\n",
                attachment.content_type
            ),
        );
        for line in STANDARD.encode(&attachment.octets).as_bytes().chunks(76) {
            octets.extend_from_slice(line);
            octets.extend_from_slice(b"\r\n");
        }
    }
    push(octets, &format!("--{boundary}--\r\n"));
}

/// A text part: 7bit while it is ASCII in short lines, else base64.
fn text_part(octets: &mut Vec<u8>, subtype: &str, text: &str) {
    let plain = text.is_ascii() && text.lines().all(|line| line.len() < 900);
    if plain {
        push(
            octets,
            &format!(
                "Content-Type: text/{subtype}; charset=\"us-ascii\"\r\nContent-Transfer-Encoding: 7bit\r\n\r\n{text}"
            ),
        );
        return;
    }
    push(
        octets,
        &format!(
            "Content-Type: text/{subtype}; charset=\"utf-8\"\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        ),
    );
    for line in STANDARD.encode(text).as_bytes().chunks(76) {
        octets.extend_from_slice(line);
        octets.extend_from_slice(b"\r\n");
    }
}

fn push(octets: &mut Vec<u8>, text: &str) {
    octets.extend_from_slice(text.as_bytes());
}

/// An address field, folded after each comma; nothing if there are no addresses.
pub(crate) fn address_field(text: &mut String, name: &str, addresses: &[String]) {
    if addresses.is_empty() {
        return;
    }
    let written = addresses.iter().map(|address| {
        let person = Person::parse(address);
        if person.name == person.address {
            person.address.to_string()
        } else {
            format!("{} <{}>", phrase(&person.name), person.address)
        }
    });
    let _ = write!(
        text,
        "{name}: {}\r\n",
        written.collect::<Vec<_>>().join(",\r\n\t")
    );
}

/// A display name: bare, quoted or as encoded words.
fn phrase(name: &str) -> String {
    if !name.is_ascii() {
        return encoded_words(name);
    }
    let plain = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || " '-_".contains(c));
    if plain {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

/// Text for a header field: as it is if it is ASCII, else RFC 2047 words of at most 75 characters.
pub(crate) fn encoded_words(text: &str) -> String {
    if text.is_ascii() {
        return text.to_owned();
    }
    let mut words: Vec<String> = vec![String::new()];
    for character in text.chars() {
        if words
            .last()
            .is_some_and(|word| word.len() + character.len_utf8() > 42)
        {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.push(character);
        }
    }
    let encoded = words
        .iter()
        .map(|word| format!("=?utf-8?B?{}?=", STANDARD.encode(word)));
    encoded.collect::<Vec<_>>().join("\r\n ")
}

/// A date as header fields write it (RFC 5322 §3.3), in UTC.
pub(crate) fn rfc2822(at: Timestamp) -> String {
    at.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

/// The fields of a header block, unfolded, in order. Reading stops at the empty line.
pub(crate) fn fields(octets: &[u8]) -> Vec<(String, String)> {
    let end = header_end(octets);
    let text = String::from_utf8_lossy(&octets[..end]);
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.split('\n').map(|line| line.trim_end_matches('\r')) {
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim_end().to_owned(), value.trim().to_owned()));
        }
    }
    fields
}

/// Where the header block ends: the position of the empty line, or the end.
pub(crate) fn header_end(octets: &[u8]) -> usize {
    memchr::memmem::find(octets, b"\r\n\r\n").map_or_else(
        || memchr::memmem::find(octets, b"\n\n").map_or(octets.len(), |at| at + 1),
        |at| at + 2,
    )
}

#[cfg(test)]
mod tests {
    use super::super::Attachment;
    use super::*;

    #[test]
    fn fields_are_read_back() {
        let mail = Mail {
            from: "Ünï <a@x.example>".into(),
            to: vec!["b@x.example".into(), "\"C, D\" <c@x.example>".into()],
            subject: "Réunion".into(),
            body: "Text\r\n".into(),
            html: Some("<p>Text</p>".into()),
            attachments: vec![Attachment {
                name: "a.pdf".into(),
                content_type: "application/pdf".into(),
                octets: vec![1, 2, 3],
            }],
            references: vec!["<1@x>".into(), "<2@x>".into()],
            ..Mail::default()
        };
        let octets = message(&mail, "<m@x>", Timestamp::UNIX_EPOCH, &mut Random::new(1));
        let fields = fields(&octets);
        let value = |name: &str| {
            fields
                .iter()
                .find(|(found, _)| found == name)
                .map(|(_, value)| value.as_str())
        };
        assert_eq!(value("To"), Some("b@x.example, \"C, D\" <c@x.example>"));
        assert_eq!(value("Subject"), Some("=?utf-8?B?UsOpdW5pb24=?="));
        assert_eq!(value("Date"), Some("Thu, 01 Jan 1970 00:00:00 +0000"));
        assert_eq!(value("In-Reply-To"), Some("<2@x>"));
        assert_eq!(value("References"), Some("<1@x> <2@x>"));
        assert!(memchr::memmem::find(&octets, b"AQID").is_some());
    }
}
