//! `search` and `show`: records of the index.

use std::collections::{BTreeSet, HashMap};

use axum::extract::{Path, Query as Parameters, State};
use axum::response::Response;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tracing::warn;

use super::csv::{HEADER, Rows};
use super::problem::Problem;
use super::stream::{Gone, NDJSON, Sink, answer};
use super::{Service, clock};
use crate::index::{Query, Record, Store, SubjectTerm};
use crate::journal::registrable_domain;
use crate::mail::{MessageId, RecordId, TenantName};

/// How far back a search goes that names no time and nothing else that is rare.
const DEFAULT_DAYS: i64 = 30;

type Terms = HashMap<String, String>;

/// `GET /v1/messages`: the records that match, the newest first, as NDJSON or, with `format=csv`, CSV.
pub(super) async fn search(
    State(service): State<Service>,
    Parameters(terms): Parameters<Terms>,
) -> Result<Response, Problem> {
    let csv = terms.get("format").is_some_and(|format| format == "csv");
    let query = query(&terms, clock::now())?;
    let store = service.parts.store.clone();
    if csv {
        return Ok(answer("text/csv; charset=utf-8", move |sink| {
            rows(&store, &query, sink)
        }));
    }
    let jobs = service.parts.worker.jobs_by_record().await;
    Ok(answer(NDJSON, move |sink| {
        each(&store, &query, sink, |record, sink| {
            sink.document(&document(&jobs, record))
        })
    }))
}

fn rows(store: &Store, query: &Query, sink: &mut Sink) -> Result<(), Gone> {
    let (mut rows, mut text) = (Rows::default(), String::new());
    sink.text(HEADER)?;
    each(store, query, sink, |record, sink| {
        text.clear();
        rows.write(record, &mut text);
        sink.text(&text)
    })
}

/// Calls for each record that matches. An error breaks the answer off, so that nobody takes a part
/// for the whole.
fn each(
    store: &Store,
    query: &Query,
    sink: &mut Sink,
    mut call: impl FnMut(&Record, &mut Sink) -> Result<(), Gone>,
) -> Result<(), Gone> {
    for record in store.search(query) {
        match record {
            Ok(record) => call(&record, sink)?,
            Err(error) => {
                warn!(error = ?error.to_string(), "a search broke off");
                sink.fail(error);
                return Err(Gone);
            }
        }
    }
    Ok(())
}

/// `GET /v1/messages/{message}`: every record of a Message-ID, or the one of a record id.
pub(super) async fn show(
    State(service): State<Service>,
    Path(message): Path<String>,
    Parameters(terms): Parameters<Terms>,
) -> Result<Response, Problem> {
    let tenant = terms.get("tenant").map(|name| TenantName::new(name));
    let records = named(&service, &message, tenant).await?;
    let jobs = service.parts.worker.jobs_by_record().await;
    Ok(answer(NDJSON, move |sink| {
        for record in &records {
            sink.document(&document(&jobs, record))?;
        }
        Ok(())
    }))
}

/// The records that a MESSAGE names; none is a problem.
pub(super) async fn named(
    service: &Service,
    message: &str,
    tenant: Option<TenantName>,
) -> Result<Vec<Record>, Problem> {
    let mut query = Query {
        tenant,
        ..Query::default()
    };
    if let Ok(id) = message.parse::<RecordId>() {
        query.record = Some(id);
    } else {
        let id =
            MessageId::new(message).ok_or_else(|| Problem::usage("the message's name is empty"))?;
        query.message_id = Some(id);
    }
    let store = service.parts.store.clone();
    let found =
        tokio::task::spawn_blocking(move || store.search(&query).collect::<Result<Vec<_>, _>>());
    let records = found
        .await
        .map_err(|error| Problem::trouble(error.to_string()))?
        .map_err(|error| Problem::trouble(error.to_string()))?;
    if records.is_empty() {
        let text = format!(
            "{message} is not in the index: it was never journaled here, or longer ago than store.retention"
        );
        return Err(Problem::not_found(text));
    }
    Ok(records)
}

/// The document of a record, with its jobs.
fn document(jobs: &HashMap<RecordId, Vec<String>>, record: &Record) -> Value {
    let mut document = record.json();
    let ids = record.ids.iter().filter_map(|id| jobs.get(id)).flatten();
    // A job may name several of the record's ids.
    let ids: BTreeSet<&String> = ids.collect();
    document["jobs"] = json!(ids);
    document
}

/// Reads the terms of a search.
fn query(terms: &Terms, now: Timestamp) -> Result<Query, Problem> {
    let mut query = Query::default();
    for (name, value) in terms {
        let wrong = |why: &str| Problem::usage(format!("{name}: {value:?} {why}"));
        match name.as_str() {
            "tenant" => query.tenant = Some(TenantName::new(value)),
            "message_id" => {
                let id = MessageId::new(value).ok_or_else(|| wrong("is no Message-ID"))?;
                query.message_id = Some(id);
            }
            "recipient" => {
                query.recipient = Some(value.parse().map_err(|_| wrong("is no mail address"))?)
            }
            "sender" => {
                query.sender = Some(value.parse().map_err(|_| wrong("is no mail address"))?)
            }
            "domain" => query.domain = Some(value.trim_start_matches('@').to_lowercase()),
            "subject" => {
                query.subject = SubjectTerm::parse(value);
                if query.subject.is_empty() {
                    return Err(wrong("has no word to look for"));
                }
            }
            "attachment_sha256" => {
                let octets = data_encoding::HEXLOWER_PERMISSIVE
                    .decode(value.as_bytes())
                    .ok();
                let hash = octets.and_then(|octets| octets.try_into().ok());
                query.attachment_sha256 =
                    Some(hash.ok_or_else(|| wrong("is no SHA-256: write 64 hexadecimal digits"))?);
            }
            "url_domain" => {
                let domain = registrable_domain(value);
                query.url_domain = Some(domain.ok_or_else(|| wrong("is no domain"))?);
            }
            "network_message_id" => query.network_message_id = Some(value.to_lowercase()),
            "references" => query.references = MessageId::new(value),
            "since" => {
                query.since = Some(value.parse().map_err(|_| wrong("is no time of RFC 3339"))?)
            }
            "until" => {
                query.until = Some(value.parse().map_err(|_| wrong("is no time of RFC 3339"))?)
            }
            "limit" => query.limit = Some(value.parse().map_err(|_| wrong("is no whole number"))?),
            "format" if value == "csv" || value == "json" => {}
            "format" => return Err(wrong("is not json or csv")),
            _ => return Err(Problem::usage(format!("there is no search term {name:?}"))),
        }
    }
    let rare = query.message_id.is_some() || query.attachment_sha256.is_some();
    if query.since.is_none() && !rare {
        query.since = now
            .checked_sub(SignedDuration::from_hours(24 * DEFAULT_DAYS))
            .ok();
    }
    Ok(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(terms: &[(&str, &str)]) -> Result<Query, String> {
        let terms = terms
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        query(&terms, "2026-11-21T00:00:00Z".parse().unwrap())
            .map_err(|problem| format!("{problem:?}"))
    }

    #[test]
    fn the_last_30_days_unless_something_rare_is_named() {
        let month_ago: Timestamp = "2026-10-22T00:00:00Z".parse().unwrap();
        let early: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let hash = "ab".repeat(32);
        for (name, terms, since) in [
            ("nothing", &[][..], Some(month_ago)),
            ("recipient", &[("recipient", "a@x")], Some(month_ago)),
            ("Message-ID", &[("message_id", "<a@x>")], None),
            ("attachment", &[("attachment_sha256", hash.as_str())], None),
            (
                "told",
                &[("since", "2026-01-01T00:00:00Z"), ("recipient", "a@x")],
                Some(early),
            ),
            (
                "until alone",
                &[("until", "2026-11-01T00:00:00Z")],
                Some(month_ago),
            ),
        ] {
            assert_eq!(read(terms).unwrap().since, since, "{name}");
        }
    }

    /// The index has registrable domains, in A-labels.
    #[test]
    fn domains_of_urls_are_looked_for_as_they_are_indexed() {
        for (given, expected) in [
            ("evil.example", "evil.example"),
            ("WWW.Evil.Example.", "evil.example"),
            ("login.evil.co.uk", "evil.co.uk"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("192.0.2.7", "192.0.2.7"),
        ] {
            let query = read(&[("url_domain", given)]).unwrap();
            assert_eq!(query.url_domain.as_deref(), Some(expected), "{given}");
        }
    }

    #[test]
    fn wrong_terms_are_named() {
        for (terms, expected) in [
            (
                [("recipient", "nobody")],
                "\\\"nobody\\\" is no mail address",
            ),
            ([("attachment_sha256", "abc")], "64 hexadecimal digits"),
            ([("limit", "-1")], "is no whole number"),
            ([("since", "yesterday")], "RFC 3339"),
            ([("subject", "\"\"")], "no word to look for"),
            ([("colour", "red")], "there is no search term"),
            ([("url_domain", "http://")], "is no domain"),
        ] {
            let error = read(&terms).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
