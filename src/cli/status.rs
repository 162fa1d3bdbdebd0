//! `status`: the service on one screen.

use clap::Args;
use serde_json::Value;

use super::show::{list, text};
use super::{Context, Exit, Outcome};

/// The service on one screen: feed, index, jobs, certificate, disk
#[derive(Debug, Args)]
pub(super) struct Arguments {}

pub(super) fn run(context: &mut Context, _: &Arguments) -> Outcome {
    let mut client = context.client()?;
    let status = client.get("/v1/status", &[])?.document()?;
    let out = &mut context.out;
    if out.is_json() {
        out.document(&status)?;
        return Ok(Exit::Done);
    }
    out.fact(
        "clawback",
        format_args!(
            "{}, up {}",
            text(&status["version"]),
            span(&status["uptime"])
        ),
    )?;
    let feed = &status["feed"];
    let last = feed["last_report"].as_str().unwrap_or("never");
    out.fact(
        "feed",
        format_args!(
            "last report {last}, {} reports/s over the last minute",
            text(&feed["rate_1m"])
        ),
    )?;
    for tenant in list(&feed["tenants"]) {
        out.fact(
            &format!("  {}", text(&tenant["tenant"])),
            format_args!(
                "last report {}, connector validated {}",
                tenant["last_report"].as_str().unwrap_or("never"),
                tenant["connector_validated_at"].as_str().unwrap_or("never"),
            ),
        )?;
    }
    let index = &status["index"];
    out.fact(
        "index",
        format_args!(
            "{} reports in {} partitions, {} behind",
            text(&index["reports"]),
            text(&index["partitions"]),
            text(&index["lag"])
        ),
    )?;
    let jobs: Vec<String> = status["jobs"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    out.fact(
        "jobs",
        if jobs.is_empty() {
            "none".into()
        } else {
            jobs.join(", ")
        },
    )?;
    out.fact(
        "quarantine",
        format_args!("{} messages", text(&status["quarantine"])),
    )?;
    let days = &status["disk"]["days_left"];
    let days = if days.is_null() {
        "no end in sight".into()
    } else {
        format!("full in {} days", text(days))
    };
    out.fact(
        "disk",
        format_args!("{} octets used, {days}", text(&status["disk"]["bytes"])),
    )?;
    let certificate = &status["certificate"];
    let names: Vec<String> = list(&certificate["names"]).iter().map(text).collect();
    out.fact(
        "certificate",
        format_args!(
            "{}, {} days left",
            names.join(" "),
            text(&certificate["days_left"])
        ),
    )?;
    for graph in list(&status["graph"]) {
        if let Some(problem) = graph["problem"].as_str() {
            out.fact(
                "Graph",
                format_args!("{}: {problem}", text(&graph["tenant"])),
            )?;
            continue;
        }
        let throttled = match graph["throttled"].as_f64() {
            Some(seconds) => format!("told to wait {seconds:.0} s"),
            None => "not throttled".into(),
        };
        out.fact(
            "Graph",
            format_args!(
                "{}: {} requests at once, {throttled}",
                text(&graph["tenant"]),
                text(&graph["limit"])
            ),
        )?;
    }
    Ok(Exit::Done)
}

/// Seconds as people say them.
fn span(seconds: &Value) -> String {
    let seconds = seconds.as_u64().unwrap_or(0);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}
