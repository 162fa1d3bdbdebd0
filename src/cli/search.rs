//! `search`: which messages were journaled, and to whom.

use clap::Args;

use super::show::{COLUMNS, row};
use super::when::When;
use super::{Context, Exit, Failure, Outcome, later};

/// Search the index
///
/// All options given must hold. Both time bounds are of when Exchange received the message. Without
/// --since, --message-id or --attachment-sha256 the last 30 days are searched. Exit 1 if nothing matched.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The Message-ID, with or without brackets
    #[arg(long, value_name = "ID")]
    message_id: Option<String>,
    /// An address that the message was delivered to
    #[arg(long, value_name = "ADDRESS")]
    recipient: Option<String>,
    /// The sender: envelope, on behalf of, or From
    #[arg(long, value_name = "ADDRESS")]
    sender: Option<String>,
    /// The sender's domain
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// Words of the subject, in any order; "…" inside is a phrase
    #[arg(long, value_name = "WORDS")]
    subject: Option<String>,
    /// SHA-256 of an attachment, 64 hexadecimal digits
    #[arg(long, value_name = "HASH")]
    attachment_sha256: Option<String>,
    /// Registrable domain of a URL in the message
    #[arg(long, value_name = "DOMAIN")]
    url_domain: Option<String>,
    /// Received then or later: 2026-11-20T08:30:00Z, 2026-11-20, 2h, "3d ago"
    #[arg(long, value_name = "TIME")]
    since: Option<When>,
    /// Received before then
    #[arg(long, value_name = "TIME")]
    until: Option<When>,
    /// At most so many, the newest
    #[arg(long, value_name = "NUMBER")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// CSV, one row a recipient
    #[arg(long)]
    csv: bool,
    #[arg(long, hide = true)]
    verdict: Option<String>,
    #[arg(long, hide = true)]
    similar: Option<String>,
}

pub(super) fn run(context: &mut Context, arguments: &Arguments) -> Outcome {
    if arguments.csv && context.out.is_json() {
        return Err(Failure::usage("--csv and --json cannot be used together"));
    }
    for (name, given) in [
        ("--verdict", &arguments.verdict),
        ("--similar", &arguments.similar),
    ] {
        if given.is_some() {
            return later::refuse(&format!("search {name}"));
        }
    }
    let time = |when: Option<When>| when.map(|when| when.0.to_string());
    let terms = [
        ("message_id", arguments.message_id.clone()),
        ("recipient", arguments.recipient.clone()),
        ("sender", arguments.sender.clone()),
        ("domain", arguments.domain.clone()),
        ("subject", arguments.subject.clone()),
        ("attachment_sha256", arguments.attachment_sha256.clone()),
        ("url_domain", arguments.url_domain.clone()),
        ("since", time(arguments.since)),
        ("until", time(arguments.until)),
        ("limit", arguments.limit.map(|limit| limit.to_string())),
        ("format", arguments.csv.then(|| "csv".to_owned())),
    ];
    let query: Vec<(&str, &str)> = terms
        .iter()
        .filter_map(|(name, value)| Some((*name, value.as_deref()?)))
        .collect();
    let mut client = context.client()?;
    let answer = client.get("/v1/messages", &query)?;
    let found = if arguments.csv {
        // The header row is always there; what counts is whether a second one is.
        rows(answer, context)? > 1
    } else {
        answer.list(&mut context.out, &COLUMNS, row)?
    };
    if !found {
        context.note(match (arguments.since, arguments.until) {
            (Some(since), Some(until)) if since.0 >= until.0 => {
                "nothing matched: --since is not before --until"
            }
            _ => "nothing matched",
        });
    }
    Ok(if found { Exit::Done } else { Exit::Finding })
}

/// Copies CSV; how many lines there were, as far as it matters.
fn rows(mut answer: super::client::Answer<'_>, context: &mut Context) -> Result<usize, Failure> {
    let mut lines = 0;
    while let Some(chunk) = answer.chunk()? {
        if lines < 2 {
            lines += memchr::memchr_iter(b'\n', &chunk).count();
        }
        context.out.octets(&chunk)?;
    }
    Ok(lines)
}
