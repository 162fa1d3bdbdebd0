//! `quarantine`: what was not believed or not understood, and what an operator makes of it.

use std::collections::HashMap;
use std::io::Read as _;
use std::net::IpAddr;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::problem::Problem;
use super::stream::{Gone, NDJSON, answer, document};
use super::take::{Proof, judge, scanner};
use super::{Caller, Peer, Service, clock};
use crate::audit::{Action, Entry};
use crate::config::Tenant;
use crate::index::NewReport;
use crate::mail::TenantName;
use crate::quarantine::{Item, ItemId, Meta, QuarantineError, UNREADABLE, fact};

/// Octets read at a time.
const CHUNK: usize = 1 << 16;

/// Which messages are meant; all of them if none is named.
#[derive(Debug, Deserialize)]
pub(super) struct Named {
    ids: Vec<String>,
}

/// `GET /v1/quarantine`: what is held, the oldest first.
pub(super) async fn list(
    State(service): State<Service>,
    Query(terms): Query<HashMap<String, String>>,
) -> Result<Response, Problem> {
    let tenant = terms.get("tenant").map(|name| TenantName::new(name));
    let held = service.parts.quarantine.list();
    Ok(answer(NDJSON, move |sink| {
        let wanted = |item: &&Item| {
            tenant
                .as_ref()
                .is_none_or(|tenant| item.meta.tenant == *tenant)
        };
        for item in held.iter().filter(wanted) {
            sink.document(item)?;
        }
        Ok(())
    }))
}

/// `GET /v1/quarantine/{id}`: the facts of one.
pub(super) async fn show(
    State(service): State<Service>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let id = parse(&id)?;
    let item = service.parts.quarantine.show(id);
    document(&item.ok_or_else(|| Problem::not_found(QuarantineError::Unknown(id).to_string()))?)
}

/// `GET /v1/quarantine/{id}/content`: the message as it was received.
pub(super) async fn content(
    State(service): State<Service>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let mut content = service
        .parts
        .quarantine
        .read(parse(&id)?)
        .map_err(|error| refused(&error))?;
    Ok(answer("message/rfc822", move |sink| {
        let mut chunk = vec![0; CHUNK];
        loop {
            match content.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(length) => sink.octets(chunk.get(..length).unwrap_or_default())?,
                Err(error) => {
                    sink.fail(error);
                    return Err(Gone);
                }
            }
        }
    }))
}

/// `POST /v1/quarantine/retry`: judges again with the parser, the tenants and the peers of now.
pub(super) async fn retry(
    State(service): State<Service>,
    caller: Caller,
    Json(named): Json<Named>,
) -> Result<Response, Problem> {
    let ids = if named.ids.is_empty() {
        service
            .parts
            .quarantine
            .list()
            .iter()
            .map(|item| item.id)
            .collect()
    } else {
        all(&named.ids)?
    };
    Ok(each(service, ids, move |service, id| {
        index(service, &caller, id, Proof::Needed)
    }))
}

/// `POST /v1/quarantine/accept`: indexes reports that nothing proves; the operator answers for them.
pub(super) async fn accept(
    State(service): State<Service>,
    caller: Caller,
    Json(named): Json<Named>,
) -> Result<Response, Problem> {
    let ids = all(&named.ids)?;
    Ok(each(service, ids, move |service, id| {
        index(service, &caller, id, Proof::Waived)
    }))
}

/// `POST /v1/quarantine/drop`: removes messages for good.
pub(super) async fn remove(
    State(service): State<Service>,
    caller: Caller,
    Json(named): Json<Named>,
) -> Result<Response, Problem> {
    let ids = all(&named.ids)?;
    Ok(each(service, ids, move |service, id| {
        let quarantine = &service.parts.quarantine;
        let item = quarantine
            .show(id)
            .ok_or_else(|| outcome(id, "unknown", "not held (any more)"))?;
        record(service, &caller, &item, "drop")?;
        quarantine
            .drop(id)
            .map_err(|error| outcome(id, "failed", error))?;
        Ok(outcome(id, "dropped", ""))
    }))
}

/// Calls for each message on a thread that may block; a line tells what became of each.
fn each<F>(service: Service, ids: Vec<ItemId>, call: F) -> Response
where
    F: Fn(&Service, ItemId) -> Result<Value, Value> + Send + 'static,
{
    let handle = Handle::current();
    answer(NDJSON, move |sink| {
        let _runtime = handle.enter();
        for id in ids {
            let (Ok(told) | Err(told)) = call(&service, id);
            sink.document(&told)?;
            sink.flush()?;
        }
        Ok(())
    })
}

/// Takes a held message into the index, if it may be believed, and removes it from the quarantine
/// once it is on stable storage there.
fn index(service: &Service, peer: &Peer, id: ItemId, proof: Proof) -> Result<Value, Value> {
    let failed = |error: &dyn std::fmt::Display| outcome(id, "failed", error);
    let quarantine = &service.parts.quarantine;
    let item = quarantine
        .show(id)
        .ok_or_else(|| outcome(id, "unknown", "not held (any more)"))?;
    if item.meta.kind == UNREADABLE {
        return Err(outcome(id, "kept", item.meta.reason));
    }
    let config = service.config();
    let Some(tenant) = config.tenant(item.meta.tenant.as_str()) else {
        return Err(outcome(
            id,
            "kept",
            "its tenant is no longer in the configuration",
        ));
    };
    let mut content = quarantine.read(id).map_err(|error| failed(&error))?;
    let mut scanner = scanner(&config);
    let mut chunk = vec![0; CHUNK];
    loop {
        match content.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => scanner.handle_octets(chunk.get(..length).unwrap_or_default()),
            Err(error) => return Err(failed(&error)),
        }
    }
    let report = scanner.finish();
    judge(&report, tenant, proof).map_err(|refused| outcome(id, "kept", refused.detail))?;
    if proof == Proof::Needed && !is_listed(&item.meta, tenant) {
        return Err(outcome(id, "kept", "its peer is not on the tenant's list"));
    }
    record(
        service,
        peer,
        &item,
        if proof == Proof::Needed {
            "retry"
        } else {
            "accept"
        },
    )?;
    let new = NewReport {
        tenant: tenant.name.clone(),
        region: item.meta.facts.get(fact::REGION).cloned(),
        arrived: item.meta.received,
        peer: item.meta.peer,
        report,
    };
    let committed = Handle::current()
        .block_on(service.parts.store.begin().commit(new))
        .map_err(|error| failed(&error))?;
    quarantine.drop(id).map_err(|error| failed(&error))?;
    let mut told = outcome(
        id,
        "indexed",
        format_args!("{} recipients", committed.recipients),
    );
    told["record"] = json!(committed.record);
    Ok(told)
}

/// Whether the peer that sent a held message is on its tenant's list now.
fn is_listed(meta: &Meta, tenant: &Tenant) -> bool {
    let Some(Ok(address)) = meta
        .peer
        .split_whitespace()
        .next()
        .map(str::parse::<IpAddr>)
    else {
        return false;
    };
    let names = meta.facts.get(fact::PEER_NAMES);
    let names = names.map(|names| fact::split(names)).unwrap_or_default();
    tenant.admits(address, &names)
}

/// Puts a change on the audit log before it is made.
fn record(service: &Service, peer: &Peer, item: &Item, verb: &str) -> Result<(), Value> {
    let now: Timestamp = clock::now();
    let entry = Entry {
        at: now,
        who: peer.who(),
        uid: peer.login_uid.or(peer.uid),
        action: Action::Change,
        job: None,
        message_id: item.meta.message_id.clone(),
        mailbox: None,
        detail: Some(format!("quarantine {verb} {}", item.id)),
    };
    let written = service.parts.audit.append(vec![entry]);
    written.map_err(|error| outcome(item.id, "failed", error))
}

fn outcome(id: ItemId, word: &str, detail: impl std::fmt::Display) -> Value {
    json!({ "id": id, "outcome": word, "detail": detail.to_string() })
}

fn all(ids: &[String]) -> Result<Vec<ItemId>, Problem> {
    if ids.is_empty() {
        return Err(Problem::usage(
            "name at least one message of the quarantine",
        ));
    }
    ids.iter().map(|id| parse(id)).collect()
}

fn parse(id: &str) -> Result<ItemId, Problem> {
    id.parse()
        .map_err(|error| Problem::usage(format!("{id:?}: {error}")))
}

fn refused(error: &QuarantineError) -> Problem {
    match error {
        QuarantineError::Unknown(_) => Problem::not_found(error.to_string()),
        _ => Problem::trouble(error.to_string()),
    }
}
