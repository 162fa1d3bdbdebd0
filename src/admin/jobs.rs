//! `retract` and `jobs`: retraction jobs.

use std::collections::HashMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use super::messages::named;
use super::problem::Problem;
use super::stream::{NDJSON, answer, document};
use super::{Caller, Service, check_tenant};
use crate::cli::Exit;
use crate::mail::{Address, TenantName};
use crate::retract::Action;
use crate::retract::job::By;
use crate::worker::{Request, RetractError, Started};

/// How long a request may wait for a job at most, in seconds.
const MAX_WAIT: u64 = 60;

/// What `POST /v1/jobs` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    /// Message-IDs or record ids.
    messages: Vec<String>,
    /// Only records of this tenant.
    tenant: Option<String>,
    action: Option<String>,
    /// Only from their mailboxes; nobody named means everybody.
    #[serde(default)]
    recipients: Vec<Address>,
    reason: Option<String>,
    #[serde(default)]
    dry_run: bool,
    /// Every record of a Message-ID that has several.
    #[serde(default)]
    all_records: bool,
}

/// `POST /v1/jobs`: plans and starts a job, or with `dry_run` says what it would do.
pub(super) async fn start(
    State(service): State<Service>,
    caller: Caller,
    Json(order): Json<Order>,
) -> Result<Response, Problem> {
    let action = order.action.as_deref().unwrap_or(Action::SoftDelete.name());
    let action: Action = action
        .parse()
        .map_err(|error| Problem::usage(format!("{error}")))?;
    check_tenant(&service.config(), order.tenant.as_ref())?;
    let tenant = order.tenant.as_deref().map(TenantName::new);
    let mut records = Vec::new();
    for message in &order.messages {
        let found = named(&service, message, tenant.clone()).await?;
        if found.len() > 1 && !order.all_records {
            return Err(Problem::usage(format!(
                "{message} has {} records; name the one meant by its record id, or say all_records",
                found.len()
            )));
        }
        for record in found {
            if !records.contains(&record.id) {
                records.push(record.id);
            }
        }
    }
    let request = Request {
        records,
        action,
        recipients: (!order.recipients.is_empty()).then_some(order.recipients),
        reason: order.reason,
        dry_run: order.dry_run,
        by: By {
            who: caller.who(),
            uid: caller.login_uid.or(caller.uid),
        },
    };
    match service.parts.worker.retract(request).await {
        Ok(Started::Job { id, state }) => document(&json!({ "job": id, "state": state.name() })),
        Ok(Started::Plan(plan)) => document(&plan),
        Err(error) => Err(refusal(&error)),
    }
}

/// `GET /v1/jobs`: the heads of all jobs, the newest first.
pub(super) async fn list(
    State(service): State<Service>,
    Query(terms): Query<HashMap<String, String>>,
) -> Result<Response, Problem> {
    let tenant = terms.get("tenant").map(|name| TenantName::new(name));
    let jobs = service.parts.worker.jobs().await;
    Ok(answer(NDJSON, move |sink| {
        for job in &jobs {
            if tenant
                .as_ref()
                .is_none_or(|tenant| job["tenant"] == tenant.as_str())
            {
                sink.document(job)?;
            }
        }
        Ok(())
    }))
}

/// `GET /v1/jobs/{id}`: the whole job; with `wait=SECONDS` once nothing is under way, or after that time.
pub(super) async fn show(
    State(service): State<Service>,
    Path(id): Path<String>,
    Query(terms): Query<HashMap<String, String>>,
) -> Result<Response, Problem> {
    let worker = &service.parts.worker;
    let seconds = terms.get("wait").map(|text| text.parse::<u64>());
    let waited = match seconds {
        None => None,
        Some(Err(_)) => return Err(Problem::usage("wait: write a number of seconds")),
        Some(Ok(seconds)) => timeout(Duration::from_secs(seconds.min(MAX_WAIT)), worker.wait(&id))
            .await
            .ok()
            .flatten(),
    };
    let job = match waited {
        Some(job) => Some(job),
        None => worker.job(&id).await,
    };
    let wanted = terms.get("tenant");
    let job = job.filter(|job| wanted.is_none_or(|tenant| job["tenant"] == tenant.as_str()));
    document(&job.ok_or_else(|| Problem::not_found(format!("there is no job {id:?}")))?)
}

/// Why a job was not started, with the exit code that it stands for.
fn refusal(error: &RetractError) -> Problem {
    let detail = error.to_string();
    match Exit::from_number(error.exit_code().into()) {
        Exit::Done | Exit::Finding => Problem::not_found(detail),
        Exit::Usage => Problem::usage(detail),
        Exit::Unreachable => Problem::trouble(detail),
        Exit::Policy => Problem::policy(detail),
        Exit::Graph => Problem::graph(detail),
    }
}
