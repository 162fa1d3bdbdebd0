//! A report as `parse --json` prints it.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::report::{Attachment, Inner, Kind, Report};

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
        "sender": envelope.sender,
        "on_behalf_of": envelope.on_behalf_of,
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

/// RFC 3339 in UTC.
fn time(time: Option<Timestamp>) -> Option<String> {
    time.map(|time| time.to_string())
}
