//! `status`: the service on one screen.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::PoisonError;

use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::problem::Problem;
use super::stream::document;
use super::{Service, clock};

/// `GET /v1/status`.
pub(super) async fn status(State(service): State<Service>) -> Result<Response, Problem> {
    let jobs = jobs(&service).await;
    let value = tokio::task::spawn_blocking(move || describe(&service, &jobs, clock::now())).await;
    document(&value.map_err(|error| Problem::trouble(error.to_string()))?)
}

fn describe(service: &Service, jobs: &BTreeMap<String, u64>, now: Timestamp) -> Value {
    let parts = &service.parts;
    let config = service.config();
    let store = parts.store.stats();
    let oldest = store
        .partitions
        .iter()
        .filter_map(|partition| partition.first)
        .min();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime": now.duration_since(parts.started).as_secs(),
        "feed": feed(service, now),
        "index": { "reports": store.reports, "partitions": store.partitions.len(), "lag": store.lag },
        "jobs": jobs,
        "quarantine": parts.quarantine.len(),
        "disk": disk(&config.store.path, store.octets, oldest, now),
        "certificate": certificate(service, now),
        "graph": graph(service),
    })
}

fn feed(service: &Service, now: Timestamp) -> Value {
    let config = service.config();
    let tenants = config.tenants.iter();
    let feeds: Vec<_> = tenants
        .map(|tenant| service.parts.feed.status(&tenant.name, now))
        .collect();
    json!({
        "last_report": feeds.iter().filter_map(|feed| feed.last_report).max(),
        "rate_1m": feeds.iter().map(|feed| feed.rate_1m).sum::<f64>(),
        "connector_validated_at": feeds.iter().filter_map(|feed| feed.connector_validated_at).max(),
        "tenants": feeds,
    })
}

/// How many jobs are in each state.
async fn jobs(service: &Service) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for job in service.parts.worker.jobs().await {
        let state = job["state"].as_str().unwrap_or("unknown").to_owned();
        *counts.entry(state).or_default() += 1;
    }
    counts
}

/// Octets of the data directory, and for how many days there is room at the pace so far.
fn disk(path: &Path, bytes: u64, oldest: Option<Timestamp>, now: Timestamp) -> Value {
    let free = rustix::fs::statvfs(path)
        .map(|system| system.f_bavail.saturating_mul(system.f_frsize))
        .ok();
    let hours = oldest.map(|oldest| now.duration_since(oldest).as_hours());
    let days = match (free, hours) {
        // Less than a day says nothing about the days to come.
        (Some(free), Some(hours @ 24..)) if bytes > 0 => {
            let a_day = bytes.saturating_mul(24) / hours.unsigned_abs();
            free.checked_div(a_day)
        }
        _ => None,
    };
    json!({ "bytes": bytes, "free": free, "days_left": days })
}

fn certificate(service: &Service, now: Timestamp) -> Value {
    let receiver = service
        .parts
        .receiver
        .read()
        .unwrap_or_else(PoisonError::into_inner);
    receiver.as_ref().map_or(Value::Null, |receiver| {
        let (names, end) = receiver.certificate();
        let days = end.duration_since(now).as_hours().div_euclid(24);
        json!({ "names": names, "days_left": days })
    })
}

/// How each tenant's Microsoft Graph is asked, or why it cannot be asked.
fn graph(service: &Service) -> Value {
    let connections = service.parts.worker.connections().into_iter();
    connections
        .map(|connection| {
            json!({
                "tenant": connection.tenant,
                "limit": connection.limit,
                "throttled": connection.throttled.map(|wait| wait.as_secs_f64()),
                "problem": connection.problem,
            })
        })
        .collect()
}
