//! `store stats` and `store verify`.

use axum::extract::State;
use axum::response::Response;
use serde_json::json;

use super::Service;
use super::problem::Problem;
use super::stream::document;
use crate::index::Finding;

/// `GET /v1/store`.
pub(super) async fn stats(State(service): State<Service>) -> Result<Response, Problem> {
    let store = service.parts.store.clone();
    let stats = tokio::task::spawn_blocking(move || store.stats()).await;
    let mut value = json!(stats.map_err(|error| Problem::trouble(error.to_string()))?);
    value["quarantine_octets"] = json!(service.parts.quarantine.bytes());
    document(&value)
}

/// `GET /v1/store/verify`: reads everything, which takes a while. What the start found damaged in the
/// quarantine, the state of jobs and the audit log stands among the findings.
pub(super) async fn verify(State(service): State<Service>) -> Result<Response, Problem> {
    let store = service.parts.store.clone();
    let verified = tokio::task::spawn_blocking(move || store.verify(true)).await;
    let mut verified = verified
        .map_err(|error| Problem::trouble(error.to_string()))?
        .map_err(|error| Problem::trouble(error.to_string()))?;
    let parts = &service.parts;
    let finding = |part: &str, what: String| Finding {
        partition: part.to_owned(),
        what,
    };
    let unreadable = parts.quarantine.unreadable().into_iter();
    let found = unreadable
        .map(|what| finding("quarantine", what))
        .chain(
            parts
                .state_damage
                .iter()
                .map(|what| finding("state", what.clone())),
        )
        .chain(
            parts
                .audit
                .finding()
                .map(|broken| finding("audit", broken.to_string())),
        );
    verified.findings.extend(found);
    document(&verified)
}
