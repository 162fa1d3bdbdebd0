//! `store stats` and `store verify`.

use axum::extract::State;
use axum::response::Response;
use serde_json::json;

use super::Service;
use super::problem::Problem;
use super::stream::document;

/// `GET /v1/store`.
pub(super) async fn stats(State(service): State<Service>) -> Result<Response, Problem> {
    let store = service.parts.store.clone();
    let stats = tokio::task::spawn_blocking(move || store.stats()).await;
    let mut value = json!(stats.map_err(|error| Problem::trouble(error.to_string()))?);
    value["quarantine_octets"] = json!(service.parts.quarantine.bytes());
    document(&value)
}

/// `GET /v1/store/verify`: reads everything, which takes a while.
pub(super) async fn verify(State(service): State<Service>) -> Result<Response, Problem> {
    let store = service.parts.store.clone();
    let verified = tokio::task::spawn_blocking(move || store.verify(true)).await;
    let verified = verified
        .map_err(|error| Problem::trouble(error.to_string()))?
        .map_err(|error| Problem::trouble(error.to_string()))?;
    document(&verified)
}
