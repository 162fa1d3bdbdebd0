//! `audit`: what was done, and whether the log still says what was written.

use std::collections::HashMap;

use axum::extract::{Query, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::Service;
use super::problem::Problem;
use super::stream::{Gone, NDJSON, answer, document};
use crate::audit::{self, Verification};

/// Directory of the audit log below `store.path`.
pub(crate) const DIRECTORY: &str = "audit";

/// `GET /v1/audit`: every entry, the oldest first.
pub(super) async fn show(State(service): State<Service>) -> Response {
    answer(NDJSON, move |sink| {
        for entry in service.parts.audit.show() {
            match entry {
                Ok(entry) => sink.document(&entry)?,
                Err(error) => {
                    sink.fail(error);
                    return Err(Gone);
                }
            }
        }
        Ok(())
    })
}

/// `GET /v1/audit/verify`; `known`: `SEQ:HASH`, separated by commas, that the log must hold.
pub(super) async fn verify(
    State(service): State<Service>,
    Query(terms): Query<HashMap<String, String>>,
) -> Result<Response, Problem> {
    let known = terms
        .get("known")
        .into_iter()
        .flat_map(|known| known.split(','));
    let known: Vec<_> = known
        .map(|text| audit::parse_known(text).map_err(|what| format!("{text:?}: {what}")))
        .collect::<Result<_, _>>()
        .map_err(Problem::usage)?;
    let verified = tokio::task::spawn_blocking(move || {
        let directory = service.config().store.path.join(DIRECTORY);
        audit::verify(&directory, &service.parts.key, &known)
    });
    let verification = verified
        .await
        .map_err(|error| Problem::trouble(error.to_string()))?
        .map_err(|error| Problem::trouble(error.to_string()))?;
    document(&verdict(&verification))
}

/// The document of `audit verify`.
pub(crate) fn verdict(verification: &Verification) -> Value {
    let (seq, hash) = &verification.head;
    json!({
        "entries": verification.entries,
        "head": { "seq": seq, "hash": hash },
        "broken": verification.broken.as_ref().map(ToString::to_string),
        "torn_octets": verification.torn_octets,
    })
}
