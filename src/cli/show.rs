//! `show`: everything that is known of a message.

use std::io;

use clap::Args;
use serde_json::Value;

use super::client::segment;
use super::message::Message;
use super::output::Output;
use super::{Context, Exit, Outcome};
use crate::escape;

/// Show a message: envelope, recipients, reports merged, jobs
///
/// Several records under one Message-ID are all shown.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A Message-ID, with or without brackets, or a record id
    #[arg(value_name = "MESSAGE")]
    message: Message,
}

pub(super) fn run(context: &mut Context, arguments: &Arguments) -> Outcome {
    let path = format!("/v1/messages/{}", segment(&arguments.message.to_string()));
    let mut client = context.client()?;
    let answer = client.get(&path, &[])?;
    if context.out.is_json() {
        answer.copy_to(&mut context.out)?;
        return Ok(Exit::Done);
    }
    let mut first = true;
    let out = &mut context.out;
    answer.each(|document| {
        if !std::mem::take(&mut first) {
            out.line("")?;
        }
        record(out, &document)?;
        Ok(())
    })?;
    Ok(Exit::Done)
}

/// The screen of one record.
fn record(out: &mut Output, document: &Value) -> io::Result<()> {
    out.fact("record", text(&document["id"]))?;
    out.fact("tenant", text(&document["tenant"]))?;
    out.fact("region", text(&document["region"]))?;
    envelope(out, document)?;
    out.fact("reports", text(&document["reports"]))?;
    out.fact("verdict", text(&document["verdict"]))?;
    for job in list(&document["jobs"]) {
        let job = if job.is_object() {
            format!(
                "{}  {}  {}",
                text(&job["id"]),
                text(&job["action"]),
                text(&job["state"])
            )
        } else {
            text(job)
        };
        out.fact("job", job)?;
    }
    Ok(())
}

/// What a journal report says; `parse` shows it too.
pub(super) fn envelope(out: &mut Output, document: &Value) -> io::Result<()> {
    out.fact("Message-ID", text(&document["message_id"]))?;
    out.fact("sender", text(&document["sender"]))?;
    out.fact("on behalf of", text(&document["on_behalf_of"]))?;
    out.fact("subject", text(&document["subject"]))?;
    out.fact("label", text(&document["label"]))?;
    out.fact("sent", text(&document["sent"]))?;
    out.fact("received", text(&document["received"]))?;
    for recipient in list(&document["recipients"]) {
        let mut line = text(&recipient["address"]);
        for (key, words) in [
            ("expanded_from", "member of"),
            ("forwarded_from", "forwarded by"),
        ] {
            if let Some(by) = recipient[key].as_str() {
                line.push_str(&format!(", {words} {by}"));
            }
        }
        out.fact(&text(&recipient["field"]), line)?;
    }
    let inner = &document["inner"];
    if inner["present"] == true {
        out.fact("from", text(&inner["from"]))?;
        out.fact("date", text(&inner["date"]))?;
        out.fact("size", format_args!("{} octets", text(&inner["size"])))?;
        for attachment in list(&inner["attachments"]) {
            let name = attachment["name"].as_str().unwrap_or("(no name)");
            out.fact(
                "attachment",
                format_args!("{name}  sha256 {}", text(&attachment["sha256"])),
            )?;
        }
        let domains: Vec<String> = list(&inner["url_domains"]).iter().map(text).collect();
        out.fact("URL domains", domains.join(", "))?;
    }
    for problem in list(&document["problems"]) {
        out.fact("problem", text(problem))?;
    }
    Ok(())
}

/// A value as people read it: texts without quotes, nothing for null.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The values of a list; none if it is no list.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// One line for a record, where several are listed.
pub(super) fn row(document: &Value) -> Vec<String> {
    let recipients = list(&document["recipients"]);
    let to = match recipients {
        [one] => text(&one["address"]),
        [first, rest @ ..] => format!("{} +{}", text(&first["address"]), rest.len()),
        [] => String::new(),
    };
    let subject = text(&document["subject"]);
    vec![
        text(&document["id"]),
        text(&document["received"])
            .get(..19)
            .unwrap_or_default()
            .replace('T', " "),
        text(&document["sender"]),
        to,
        escape::short(&subject, 60).into_owned(),
    ]
}

/// The names of [`row`]'s columns.
pub(super) const COLUMNS: [&str; 5] = [
    "record",
    "received (UTC)",
    "sender",
    "recipients",
    "subject",
];
