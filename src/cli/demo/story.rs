//! What the demo tells: each step with its figures and its place.

use std::io;
use std::path::Path;
use std::time::Duration;

use clawback_tenant::{Statistics, Story};
use serde_json::Value;

use super::stage::{Counted, Stage};
use crate::cli::jobs::counts;
use crate::cli::output::Output;
use crate::cli::show::{list, row, text};
use crate::escape;

/// Prints the story as it goes; with `--json` its figures at the end.
pub(super) struct Teller<'a> {
    out: &'a mut Output,
    step: usize,
}

impl<'a> Teller<'a> {
    pub(super) fn new(out: &'a mut Output) -> Self {
        Self { out, step: 0 }
    }

    pub(super) fn beginning(&mut self, stage: &Stage) -> io::Result<()> {
        let tenant = stage.tenant();
        self.step(
            "A simulated tenant",
            &[
                format!(
                    "{} mailboxes, Microsoft Graph at {}",
                    tenant.addresses().len(),
                    tenant.graph_url()
                ),
                "it checks every request as strictly as it can, and can refuse".into(),
            ],
        )?;
        self.step(
            "clawback, the receiver and the worker in this process",
            &[
                format!("SMTP with STARTTLS at {}", stage.address()),
                format!("data in {}", stage.directory().display()),
            ],
        )
    }

    pub(super) fn journaled(
        &mut self,
        story: &Story,
        sent: &Statistics,
        seconds: f64,
    ) -> io::Result<()> {
        self.step(
            "Mail is delivered, and journaled as Exchange Online does it",
            &[
                format!("{} messages, one of them a phish, made {} journal reports", story.messages, story.reports),
                format!(
                    "{} sent over {} sessions in {seconds:.1} s, {} put off and sent again; each 250 after fdatasync",
                    sent.sent, sent.connections, sent.retried
                ),
            ],
        )
    }

    pub(super) fn searched(&mut self, found: &[Value], took: Duration) -> io::Result<()> {
        self.step(
            "clawback search --subject 'mailbox almost full'",
            &[format!(
                "{} records in {} ms: the phish, and a colleague's warning with the same subject",
                found.len(),
                took.as_millis()
            )],
        )?;
        if !self.out.is_json() {
            let rows: Vec<Vec<String>> = found.iter().map(row).collect();
            for row in &rows {
                self.out
                    .line(format_args!("   {}", escape::plain(&row.join("  "))))?;
            }
            self.out.line("")?;
        }
        self.out.flush()
    }

    pub(super) fn retracted(
        &mut self,
        record: &Value,
        job: &Value,
        took: Duration,
    ) -> io::Result<()> {
        let id = text(&record["id"]);
        let mut lines = vec![
            format!(
                "{} recipients, told by {} journal reports, groups and forwards included",
                list(&record["recipients"]).len(),
                text(&record["reports"])
            ),
            format!(
                "job {}, settled in {:.1} s; copies: {}",
                text(&job["id"]),
                took.as_secs_f64(),
                counts(job)
            ),
        ];
        for item in list(&job["items"]) {
            let (state, reason) = (text(&item["state"]), text(&item["reason"]));
            if state != "verified" {
                let whom = item["mailbox"]
                    .as_str()
                    .or_else(|| item["recipient"].as_str());
                lines.push(format!(
                    "{:<13} {} ({})",
                    state,
                    whom.unwrap_or_default(),
                    reason.replace('_', " ")
                ));
            }
        }
        self.step(
            &format!("clawback retract {id} --to soft-delete --wait"),
            &lines,
        )
    }

    pub(super) fn verified(&mut self, before: &Counted, after: &Counted) -> io::Result<()> {
        self.step(
            "Checked against the tenant's own mailboxes",
            &[
                format!(
                    "{} mailboxes: {} copies of the phish within reach before, {} now; {} in Recoverable Items",
                    after.mailboxes, before.within_reach, after.within_reach, after.recoverable
                ),
                format!("the warning with the same subject: {} copies before, {} now", before.decoys, after.decoys),
            ],
        )
    }

    pub(super) fn audited(&mut self, audit: &Value) -> io::Result<()> {
        let state = audit["broken"].as_str().unwrap_or("unbroken");
        self.step(
            "clawback audit verify",
            &[format!(
                "{} entries, each written before or after what it tells; the chain is {state}",
                text(&audit["entries"])
            )],
        )
    }

    /// The last lines, or the document.
    pub(super) fn end(&mut self, summary: &Value, keep: Option<&Path>) -> io::Result<()> {
        if self.out.is_json() {
            return self.out.document(summary);
        }
        let seconds = summary["seconds"].as_f64().unwrap_or_default();
        self.out.line(format_args!("Done in {seconds:.1} s."))?;
        let Some(keep) = keep else {
            return self.out.line(
                "Nothing is left behind; --keep DIR keeps configuration and data to explore.",
            );
        };
        let config = keep.join("clawback.toml");
        let config = escape::plain(&config.display().to_string()).into_owned();
        let command = format!("clawback --config {config}");
        for line in [
            format!(
                "Kept in {}. The simulated tenant is gone, so nothing more can be retracted; to explore:",
                keep.display()
            ),
            format!("  {command} serve &"),
            format!("  {command} status"),
            format!("  {command} search --subject 'mailbox almost full'"),
            format!("  {command} show '<{}>'", text(&summary["phish"])),
            format!("  {command} jobs show {}", text(&summary["job"])),
            format!("  {command} audit show"),
        ] {
            self.out.line(escape::plain(&line))?;
        }
        Ok(())
    }

    fn step(&mut self, title: &str, lines: &[String]) -> io::Result<()> {
        self.step += 1;
        if self.out.is_json() {
            return Ok(());
        }
        self.out
            .line(format_args!("{}. {}", self.step, escape::plain(title)))?;
        for line in lines {
            self.out.line(format_args!("   {}", escape::plain(line)))?;
        }
        self.out.line("")?;
        // Whoever watches sees each step as it ends.
        self.out.flush()
    }
}
