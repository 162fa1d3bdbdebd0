//! A report as `parse --json` prints it.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::report::{Attachment, Inner, Kind, Report};
use crate::mail::Address;

/// One JSON object: kind, envelope, recipients, the journaled message's facts, problems.
pub fn json(report: &Report) -> Value {
    let envelope = &report.envelope;
    let recipients = if report.kind == Kind::Report {
        report.recipients.as_slice()
    } else {
        &[]
    };
    json!({
        "kind": report.kind,
        "sender": path(&envelope.sender, &envelope.sender_text),
        "on_behalf_of": path(&envelope.on_behalf_of, &envelope.on_behalf_of_text),
        "subject": envelope.subject,
        "message_id": envelope.message_id,
        "label": envelope.label,
        "mailbox": envelope.mailbox,
        "sent": time(envelope.sent),
        "received": time(envelope.received),
        "recipients": recipients,
        "inner": inner(&report.inner),
        "problems": report.problems,
    })
}

fn inner(inner: &Inner) -> Value {
    let attachment = |attachment: &Attachment| {
        let hash = data_encoding::HEXLOWER.encode(&attachment.sha256);
        json!({"name": attachment.name, "sha256": hash})
    };
    json!({
        "present": inner.present,
        "partly_read": inner.partly_read,
        "from": inner.from,
        "date": time(inner.date),
        "subject": inner.subject,
        "message_id": inner.message_id,
        "network_message_id": inner.network_message_id,
        "references": inner.references,
        "size": inner.size,
        "attachments": inner.attachments.iter().map(attachment).collect::<Vec<_>>(),
        "url_domains": inner.url_domains,
    })
}

/// An address, or what stands in its place.
fn path<'a>(address: &'a Option<Address>, text: &'a Option<String>) -> Option<&'a str> {
    address.as_ref().map(Address::as_str).or(text.as_deref())
}

/// RFC 3339 in UTC.
fn time(time: Option<Timestamp>) -> Option<String> {
    time.map(|time| time.to_string())
}
