//! `demo`: the whole job on this machine, with a simulated tenant and no configuration.
//!
//! A company's mail is delivered to simulated mailboxes and journaled to the real receiver over
//! STARTTLS; the phish among it is searched for, retracted by the real worker through the simulated
//! Graph, and looked for in the tenant's own mailboxes afterwards. Nothing leaves the machine.

mod stage;
mod story;

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};

use super::client::{Client, segment};
use super::show::{list, text};
use super::{Context, Exit, Failure, Outcome};
use crate::telemetry::{self, Verbosity};
use stage::Stage;
use story::Teller;

/// Show the whole job on this machine: no tenant, no configuration
///
/// A simulated tenant delivers realistic mail and journals it over STARTTLS; the phish among it is
/// searched, retracted from every mailbox, and looked for afterwards. Takes a few seconds, uses
/// ephemeral ports on loopback, and leaves nothing behind unless --keep is given.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Keep configuration and data here, to explore with the other commands
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// How much ordinary mail there is beside the phish
    #[arg(long, value_name = "NUMBER", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    messages: u32,
}

pub(super) fn run(context: &mut Context, arguments: &Arguments) -> Outcome {
    if context.global.verbose > 0 {
        telemetry::start_logs(Verbosity::Normal);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::usage(format!("no event loop: {error}")))?;
    let began = now();
    let mut teller = Teller::new(&mut context.out);
    let stage = Stage::set(&runtime, arguments.keep.as_deref())?;
    let told = tell(&mut teller, &runtime, &stage, arguments.messages);
    // However the story ends, the service is stopped in order.
    let stopped = stage.clear(&runtime);
    let mut summary = told?;
    stopped?;
    let left = summary["copies_left"].as_u64().unwrap_or(0)
        + summary["others_moved"].as_u64().unwrap_or(0);
    summary["seconds"] = json!(began.elapsed().as_secs_f64());
    teller.end(&summary, arguments.keep.as_deref())?;
    Ok(if left == 0 { Exit::Done } else { Exit::Finding })
}

/// The story, step by step; its figures.
fn tell(
    teller: &mut Teller<'_>,
    runtime: &tokio::runtime::Runtime,
    stage: &Stage,
    messages: u32,
) -> Result<Value, Failure> {
    teller.beginning(stage)?;
    let began = now();
    let (story, statistics) = stage.play(runtime, messages)?;
    let seconds = began.elapsed().as_secs_f64();
    teller.journaled(&story, &statistics, seconds)?;

    let mut client = Client::new(stage.socket(), None)?;
    let began = now();
    let mut found = Vec::new();
    let words = [("subject", "mailbox almost full")];
    client.get("/v1/messages", &words)?.each(|record| {
        found.push(record);
        Ok(())
    })?;
    teller.searched(&found, began.elapsed())?;

    let id = story.phish.message_id.trim_matches(['<', '>']).to_owned();
    let records: Vec<&Value> = found
        .iter()
        .filter(|record| record["message_id"] == id.as_str())
        .collect();
    let [record] = records[..] else {
        return Err(Failure::new(
            Exit::Finding,
            format!("the phish is {} records, not one", records.len()),
        ));
    };
    let before = stage.count(&story);
    let order = json!({
        "messages": [record["id"]],
        "action": "soft-delete",
        "reason": "demo: credential phish",
    });
    let began = now();
    let job = text(&client.post("/v1/jobs", &order)?.document()?["job"]);
    let job = wait(&mut client, &job)?;
    teller.retracted(record, &job, began.elapsed())?;

    let after = stage.count(&story);
    teller.verified(&before, &after)?;
    let audit = client.get("/v1/audit/verify", &[])?.document()?;
    teller.audited(&audit)?;
    Ok(json!({
        "messages": story.messages,
        "reports": story.reports,
        "phish": id,
        "record": record["id"],
        "recipients": list(&record["recipients"]).len(),
        "job": job["id"],
        "counts": job["counts"],
        "copies_before": before.within_reach,
        "copies_left": after.within_reach,
        "others_moved": before.decoys.abs_diff(after.decoys),
        "audit_entries": audit["entries"],
        "audit_broken": audit["broken"],
    }))
}

/// The job once nothing of it is under way.
fn wait(client: &mut Client, id: &str) -> Result<Value, Failure> {
    loop {
        let job = client
            .get(&format!("/v1/jobs/{}", segment(id)), &[("wait", "20")])?
            .document()?;
        if super::retract::settled(&job) {
            return Ok(job);
        }
    }
}

/// For how long things took.
#[expect(
    clippy::disallowed_methods,
    reason = "the demo is a driver: the time comes in here"
)]
fn now() -> Instant {
    Instant::now()
}
