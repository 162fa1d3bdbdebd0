//! `retract`: takes a message out of every mailbox that got it.

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser};
use serde_json::{Value, json};

use super::client::{Client, segment};
use super::confirm::ask;
use super::jobs::screen;
use super::message::Message;
use super::progress::Progress;
use super::show::{COLUMNS, list, row, text};
use super::{Context, Exit, Failure, Outcome, later};
use crate::mail::Address;
use crate::retract::Action;

/// Take a message out of every mailbox that got it
///
/// Plans and starts a job: every recipient's mailbox is searched, each copy is identified, moved,
/// and looked up again. Exit 0 with --wait only if every copy within reach is where it was asked to be.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Message-IDs, with or without brackets, or record ids
    #[arg(value_name = "MESSAGE", required_unless_present_any = ["from_search", "from_file"])]
    messages: Vec<Message>,
    /// Where to: junk and trash leave it where the user sees it, soft-delete in Recoverable Items
    #[arg(long, value_name = "ACTION", default_value = "soft-delete")]
    #[arg(value_parser = actions())]
    to: String,
    /// Only from this recipient's mailbox; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    recipient: Vec<Address>,
    /// Every record of a Message-ID that has several
    #[arg(long)]
    all_records: bool,
    /// Say what would be done: reads the directory and Graph, changes nothing
    #[arg(long)]
    dry_run: bool,
    /// Why; kept with the job and on the audit log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Wait until nothing is under way any more
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[arg(long, hide = true, num_args = 0.., allow_hyphen_values = true)]
    from_search: Option<Vec<String>>,
    #[arg(long, hide = true)]
    from_file: Option<String>,
    #[arg(long, hide = true)]
    include_sender: bool,
    #[arg(long, hide = true)]
    include_descendants: bool,
}

/// Every action; those that this version refuses are not offered.
fn actions() -> PossibleValuesParser {
    let offered =
        |action: Action| PossibleValue::new(action.name()).hide(action == Action::HardDelete);
    PossibleValuesParser::new(Action::ALL.map(offered))
}

pub(super) fn run(context: &mut Context, arguments: &Arguments) -> Outcome {
    for (name, given) in [
        ("--from-search", arguments.from_search.is_some()),
        ("--from-file", arguments.from_file.is_some()),
        ("--include-sender", arguments.include_sender),
        ("--include-descendants", arguments.include_descendants),
    ] {
        if given {
            return later::refuse(&format!("retract {name}"));
        }
    }
    let mut client = context.client()?;
    let records = records(context, arguments, &mut client)?;
    if !arguments.dry_run {
        ask(context, &question(arguments, &records), arguments.yes)?;
    }
    let ids: Vec<String> = records.iter().map(|record| text(&record["id"])).collect();
    let request = json!({
        "messages": ids,
        "tenant": context.global.tenant,
        "action": arguments.to,
        "recipients": arguments.recipient,
        "reason": arguments.reason,
        "dry_run": arguments.dry_run,
    });
    let answer = client.post("/v1/jobs", &request)?.document()?;
    if arguments.dry_run {
        if context.out.is_json() {
            context.out.document(&answer)?;
        } else {
            screen(&mut context.out, &answer)?;
        }
        return Ok(Exit::Done);
    }
    let id = text(&answer["job"]);
    if !arguments.wait {
        if context.out.is_json() {
            context.out.document(&answer)?;
        } else {
            context.out.line(crate::escape::plain(&id))?;
        }
        if answer["state"] == "awaiting_approval" {
            context.note(awaiting(&id));
            return Ok(Exit::Policy);
        }
        if !context.out.is_json() {
            context.note(format!("started; see it with: clawback jobs show {id}"));
        }
        return Ok(Exit::Done);
    }
    wait(context, &mut client, &id)
}

/// The records that are meant. A Message-ID with several is refused, with what differs.
fn records(
    context: &mut Context,
    arguments: &Arguments,
    client: &mut Client,
) -> Result<Vec<Value>, Failure> {
    let mut all: Vec<Value> = Vec::new();
    for message in &arguments.messages {
        let mut found = Vec::new();
        let path = format!("/v1/messages/{}", segment(&message.to_string()));
        client.get(&path, &[])?.each(|record| {
            found.push(record);
            Ok(())
        })?;
        if found.len() > 1 && !arguments.all_records {
            return Err(several(context, message, &found)?);
        }
        for record in found {
            if !all.iter().any(|known| known["id"] == record["id"]) {
                all.push(record);
            }
        }
    }
    Ok(all)
}

/// Lists the records of one Message-ID with what differs.
fn several(context: &mut Context, message: &Message, found: &[Value]) -> Result<Failure, Failure> {
    if context.out.is_json() {
        for record in found {
            context.out.document(record)?;
        }
    } else {
        let rows: Vec<Vec<String>> = found
            .iter()
            .map(|record| {
                let mut row = row(record);
                row.push(text(&record["inner"]["from"]));
                row.push(text(&record["inner"]["date"]));
                row.push(text(&record["size"]));
                row
            })
            .collect();
        let header: Vec<&str> = COLUMNS
            .into_iter()
            .chain(["from", "date", "size"])
            .collect();
        context.out.table(&header, &rows)?;
    }
    context.out.flush()?;
    Ok(Failure::usage(format!(
        "{message} has {} records; name the one meant by its record id, or say --all-records",
        found.len()
    )))
}

fn question(arguments: &Arguments, records: &[Value]) -> String {
    let recipients: usize = if arguments.recipient.is_empty() {
        records
            .iter()
            .map(|record| list(&record["recipients"]).len())
            .sum()
    } else {
        arguments.recipient.len()
    };
    let subject = match records {
        [one] => format!(" {:?} from {}", text(&one["subject"]), text(&one["sender"])),
        _ => String::new(),
    };
    format!(
        "Retract {} message{}{subject} ({}) from the mailboxes of {recipients} recipients?",
        records.len(),
        if records.len() == 1 { "" } else { "s" },
        arguments.to,
    )
}

/// Waits until no item is under way; how the job ended is the exit code.
fn wait(context: &mut Context, client: &mut Client, id: &str) -> Outcome {
    let path = format!("/v1/jobs/{}", segment(id));
    let progress = Progress::new(context);
    loop {
        // The service answers when the job has settled, or after a while, so this asks seldom.
        let job = client.get(&path, &[("wait", "20")])?.document()?;
        if !settled(&job) {
            let told = format!("{id}: {}", super::jobs::counts(&job));
            if progress.is_hidden() {
                context.note(told);
            } else {
                progress.say(told);
            }
            continue;
        }
        drop(progress);
        if job["state"] == "awaiting_approval" {
            context.note(awaiting(id));
        }
        if context.out.is_json() {
            context.out.document(&job)?;
        } else {
            screen(&mut context.out, &job)?;
        }
        return Ok(verdict(&job));
    }
}

/// What to do about a job that waits for an approval, which this version has no command for.
fn awaiting(id: &str) -> String {
    format!(
        "{id} waits for approval and does nothing: it has more copies than \
         retraction.max_copies_without_approval, and this version cannot approve; raise the limit \
         and retract again, or name fewer mailboxes with --recipient"
    )
}

/// Whether nothing of the job is under way.
pub(super) fn settled(job: &Value) -> bool {
    let under_way = ["pending", "located", "acted"];
    let count = |state: &&str| job["counts"][*state].as_u64().unwrap_or(0);
    match job["state"].as_str() {
        Some("awaiting_approval" | "done" | "cancelled") => true,
        Some("planned") => false,
        _ => under_way.iter().map(count).sum::<u64>() == 0,
    }
}

/// The exit code that a settled job stands for.
fn verdict(job: &Value) -> Exit {
    if job["state"] == "awaiting_approval" {
        return Exit::Policy;
    }
    let any = |states: &[&str]| {
        let items = list(&job["items"]).iter();
        // A message of the same Message-ID that the journal knows is nothing that was to be found.
        let explained =
            |item: &&Value| item["state"] == "mismatch" && !item["other_record"].is_null();
        let items = items
            .filter(|item| !explained(item))
            .map(|item| &item["state"]);
        let recipients = list(&job["recipients"])
            .iter()
            .map(|recipient| &recipient["outcome"]);
        items
            .chain(recipients)
            .any(|state| states.iter().any(|wanted| state == wanted))
    };
    if any(&["denied"]) {
        Exit::Graph
    } else if any(&["not_found", "mismatch", "failed"]) || job["state"] == "cancelled" {
        Exit::Finding
    } else {
        Exit::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_of_jobs() {
        for (name, state, items, expected) in [
            (
                "all where asked",
                "running",
                &["verified", "already_gone"][..],
                Exit::Done,
            ),
            (
                "outside is no failure",
                "done",
                &["verified", "external", "no_mailbox"],
                Exit::Done,
            ),
            (
                "one not found",
                "done",
                &["verified", "not_found"],
                Exit::Finding,
            ),
            ("another message", "done", &["mismatch"], Exit::Finding),
            ("Graph outranks", "done", &["failed", "denied"], Exit::Graph),
            ("approval", "awaiting_approval", &["pending"], Exit::Policy),
            ("cancelled", "cancelled", &["verified"], Exit::Finding),
        ] {
            let items: Vec<Value> = items
                .iter()
                .map(|state| json!({ "state": state }))
                .collect();
            let job = json!({ "state": state, "items": items, "recipients": [] });
            assert_eq!(verdict(&job), expected, "{name}");
        }
    }

    #[test]
    fn another_message_that_the_journal_knows_is_no_finding() {
        let item = |other: Value| json!({"state": "mismatch", "other_record": other});
        let verified = json!({"state": "verified", "other_record": null});
        for (name, other, outcome, expected) in [
            ("known", json!("rec_b"), "verified", Exit::Done),
            ("unknown", Value::Null, "verified", Exit::Finding),
            (
                "known, and the wanted one is not there",
                json!("rec_b"),
                "mismatch",
                Exit::Finding,
            ),
        ] {
            let job = json!({
                "state": "done",
                "items": [verified, item(other)],
                "recipients": [{"outcome": outcome}],
            });
            assert_eq!(verdict(&job), expected, "{name}");
        }
    }

    #[test]
    fn settled_means_nothing_under_way() {
        for (name, job, expected) in [
            (
                "acted waits for proof",
                json!({"state": "running", "counts": {"acted": 1}}),
                false,
            ),
            (
                "watching",
                json!({"state": "waiting", "counts": {"verified": 3}}),
                true,
            ),
            ("planned", json!({"state": "planned", "counts": {}}), false),
            (
                "approval",
                json!({"state": "awaiting_approval", "counts": {"pending": 3}}),
                true,
            ),
        ] {
            assert_eq!(settled(&job), expected, "{name}");
        }
    }
}
