//! `$batch`: the envelope, checked; its items, run as requests of their own.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::{Answer, Body};
use crate::random::{self, Random};
use crate::service::{Call, Outcome, Service, Signed};
use crate::settings::Scope;
use crate::world::locked;

/// Most items of a batch.
const ITEMS: usize = 20;
/// How many Outlook items of one batch run at once.
const LANES: usize = 4;

/// An item, checked.
#[derive(Debug)]
struct Item {
    id: String,
    call: Call,
    depends_on: Vec<usize>,
}

/// Runs a batch. Items with `dependsOn` wait; Outlook items run four wide; answers come in any order.
pub(crate) async fn run(
    service: &Arc<Service>,
    signed: &Signed,
    body: Option<&Value>,
    outer: &Call,
) -> Answer {
    let number = locked(&signed.world.traffic).batch();
    let items = match items(body, outer, signed, number) {
        Ok(items) => items,
        Err(refusal) => return refusal,
    };
    let lanes = Arc::new(Semaphore::new(LANES));
    let (senders, receivers): (Vec<_>, Vec<_>) =
        items.iter().map(|_| watch::channel(None::<u16>)).unzip();
    let mut running = JoinSet::new();
    for (item, done) in items.into_iter().zip(senders) {
        let waits: Vec<_> = item
            .depends_on
            .iter()
            .filter_map(|position| receivers.get(*position).cloned())
            .collect();
        let (service, signed, lanes) = (Arc::clone(service), signed.clone(), Arc::clone(&lanes));
        running.spawn(async move {
            let answer = if all_succeeded(waits).await {
                let lane = if item.call.scope() == Scope::Outlook {
                    lanes.acquire().await.ok()
                } else {
                    None
                };
                let outcome = service.run(&signed, &item.call).await;
                drop(lane);
                of_outcome(outcome)
            } else {
                Answer::error(
                    424,
                    "FailedDependency",
                    "The request failed because a request that it depends on failed.",
                )
            };
            done.send_replace(Some(answer.status));
            response(&item.id, answer)
        });
    }
    let mut responses = running.join_all().await;
    responses.sort_by_cached_key(|response| response["id"].to_string());
    Random::new(random::hash(signed.world.seed, &[&number.to_be_bytes()])).shuffle(&mut responses);
    Answer::json(200, json!({ "responses": responses }))
}

/// Waits until all are done; whether all were 2xx.
async fn all_succeeded(waits: Vec<watch::Receiver<Option<u16>>>) -> bool {
    for mut wait in waits {
        let Ok(status) = wait.wait_for(Option::is_some).await else {
            return false;
        };
        if status.is_none_or(|status| status >= 400) {
            return false;
        }
    }
    true
}

/// A cut connection between the batch and a service behind it shows as 504.
fn of_outcome(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Answer(answer) => answer,
        Outcome::Dropped | Outcome::Disconnected => Answer::error(
            504,
            "UnknownError",
            "The gateway did not get an answer in time.",
        ),
    }
}

/// The entry of an item in the batch's answer.
fn response(id: &str, answer: Answer) -> Value {
    let mut headers: Map<String, Value> = answer
        .headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone().into()))
        .collect();
    let mut entry = json!({ "id": id, "status": answer.status });
    match answer.body {
        Body::None => {}
        Body::Json(body) => {
            headers.insert("Content-Type".into(), "application/json;odata.metadata=minimal;odata.streaming=true;IEEE754Compatible=false;charset=utf-8".into());
            entry["body"] = body;
        }
        Body::Mime(octets) => {
            headers.insert("Content-Type".into(), "text/plain".into());
            entry["body"] = STANDARD.encode(octets).into();
        }
    }
    entry["headers"] = headers.into();
    entry
}

/// Checks the envelope.
///
/// # Errors
///
/// 400 for the whole batch.
fn items(
    body: Option<&Value>,
    outer: &Call,
    signed: &Signed,
    number: u64,
) -> Result<Vec<Item>, Answer> {
    let refusal = |message: String| Answer::error(400, "BadRequest", message);
    let members = body
        .and_then(Value::as_object)
        .ok_or_else(|| refusal("Invalid batch payload format.".into()))?;
    let requests = match (
        members.len(),
        members.get("requests").and_then(Value::as_array),
    ) {
        (1, Some(requests)) if !requests.is_empty() => requests,
        _ => return Err(refusal("Invalid batch payload format.".into())),
    };
    if requests.len() > ITEMS {
        return Err(refusal(format!(
            "Number of batch request steps exceeds the maximum value of {ITEMS}."
        )));
    }
    let mut positions = HashMap::new();
    for (position, request) in requests.iter().enumerate() {
        let id = request["id"]
            .as_str()
            .filter(|id| !id.is_empty())
            .ok_or_else(|| refusal("A batch request has no id.".into()))?;
        if positions.insert(id.to_lowercase(), position).is_some() {
            return Err(refusal(format!(
                "Duplicate request id '{id}' found in the batch."
            )));
        }
    }
    let inherited = signed
        .world
        .conduct()
        .guesses
        .batch_inherits_prefer
        .then(|| outer.header("prefer").map(ToOwned::to_owned))
        .flatten();
    let item =
        |request: &Value| item(request, &positions, inherited.as_deref(), number).map_err(refusal);
    let items: Vec<Item> = requests.iter().map(item).collect::<Result<_, _>>()?;
    if has_cycle(&items) {
        return Err(refusal(
            "The dependencies of the batch form a cycle.".into(),
        ));
    }
    Ok(items)
}

/// One item.
fn item(
    request: &Value,
    positions: &HashMap<String, usize>,
    prefer: Option<&str>,
    number: u64,
) -> Result<Item, String> {
    let members = request.as_object().ok_or("A batch request is no object.")?;
    const KNOWN: [&str; 6] = ["id", "method", "url", "headers", "body", "dependsOn"];
    if let Some(name) = members.keys().find(|name| !KNOWN.contains(&name.as_str())) {
        return Err(format!("A batch request has the unknown member '{name}'."));
    }
    let text = |name: &str| {
        members
            .get(name)
            .and_then(Value::as_str)
            .map(ToOwned::to_owned)
    };
    let (id, method, url) = (
        text("id").unwrap_or_default(),
        text("method").ok_or("A batch request has no method.")?,
        text("url").ok_or("A batch request has no url.")?,
    );
    if !["GET", "POST", "PATCH", "PUT", "DELETE"].contains(&method.as_str()) {
        return Err(format!("The method '{method}' is not allowed in a batch."));
    }
    let target = if url.starts_with('/') {
        url
    } else {
        format!("/{url}")
    };
    if target.contains("://")
        || ["/v1.0", "/beta", "/$batch"]
            .iter()
            .any(|front| target.to_lowercase().starts_with(front))
    {
        return Err(format!(
            "The url '{target}' is not relative to the version."
        ));
    }
    let mut headers = HashMap::new();
    for (name, value) in members
        .get("headers")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let value = value
            .as_str()
            .ok_or_else(|| format!("The header '{name}' is no string."))?;
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let body = members.get("body").filter(|body| !body.is_null()).cloned();
    if body.is_some() && !headers.contains_key("content-type") {
        return Err(format!(
            "Write request id : {id} does not contain Content-Type header or body."
        ));
    }
    if let Some(prefer) = prefer {
        headers
            .entry("prefer".into())
            .or_insert_with(|| prefer.to_owned());
    }
    let depends_on = dependencies(members.get("dependsOn"), positions)?;
    Ok(Item {
        id,
        call: Call {
            method,
            target,
            headers,
            body,
            batch: Some(number),
        },
        depends_on,
    })
}

fn dependencies(
    value: Option<&Value>,
    positions: &HashMap<String, usize>,
) -> Result<Vec<usize>, String> {
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return Ok(Vec::new());
    };
    let names = value.as_array().ok_or("dependsOn is no array.")?;
    let position = |name: &Value| {
        let name = name.as_str().unwrap_or_default().to_lowercase();
        positions
            .get(&name)
            .copied()
            .ok_or_else(|| format!("dependsOn names '{name}', which is not in the batch."))
    };
    names.iter().map(position).collect()
}

/// Whether some item waits for itself.
fn has_cycle(items: &[Item]) -> bool {
    let mut free: HashSet<usize> = HashSet::new();
    loop {
        let ready = |position: &usize| {
            !free.contains(position)
                && items[*position]
                    .depends_on
                    .iter()
                    .all(|other| free.contains(other))
        };
        let found: Vec<usize> = (0..items.len()).filter(ready).collect();
        if found.is_empty() {
            return free.len() < items.len();
        }
        free.extend(found);
    }
}
