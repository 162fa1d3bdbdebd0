//! `import`: reports that stream in through the socket.
//!
//! The request is a row of messages, each its length (8 octets, big endian) and its octets. They run
//! through the scanner as they come, so a message of any size costs the memory of its header. The
//! answer is a line for each message, once all that were taken are on stable storage.

use std::collections::HashMap;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{Query, State};
use axum::response::Response;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::info;

use super::problem::Problem;
use super::stream::{Gone, NDJSON, answer};
use super::take::{Proof, judge, scanner};
use super::{Caller, Service, clock};
use crate::config::Tenant;
use crate::index::{Imported, Importer, NewReport, Store};
use crate::journal::Report;
use crate::mail::RecordId;

/// Reports that may wait for the index.
const WAITING: usize = 64;

/// `POST /v1/import?tenant=NAME`.
pub(super) async fn import(
    State(service): State<Service>,
    Query(terms): Query<HashMap<String, String>>,
    caller: Caller,
    body: Body,
) -> Result<Response, Problem> {
    let name = terms
        .get("tenant")
        .ok_or_else(|| Problem::usage("import needs a tenant"))?;
    let config = service.config();
    let Some(tenant) = config.tenant(name).cloned() else {
        return Err(Problem::usage("import needs a tenant"));
    };
    // One at a time: two would both begin the same days.
    let Ok(turn) = std::sync::Arc::clone(&service.importing).try_lock_owned() else {
        return Err(Problem::policy(
            "another import is under way; wait for its end",
        ));
    };
    info!(tenant = name.as_str(), who = caller.who(), "import begins");
    let (reports, waiting) = mpsc::channel(WAITING);
    let limits = config;
    tokio::spawn(async move {
        let mut messages = Messages::new(body);
        loop {
            let mut scanner = scanner(&limits);
            let read = messages.next(|octets| scanner.handle_octets(octets)).await;
            let message = match read {
                Ok(true) => Ok(scanner.finish()),
                Ok(false) => return,
                Err(error) => Err(error),
            };
            let last = message.is_err();
            if reports.send(message).await.is_err() || last {
                return;
            }
        }
    });
    let store = service.parts.store.clone();
    Ok(answer(NDJSON, move |sink| {
        let _turn = turn;
        let outcomes = run(&store, &tenant, waiting, clock::now()).map_err(|error| {
            sink.fail(error);
            Gone
        })?;
        for (number, told) in outcomes.into_iter().enumerate() {
            sink.document(&told.document(number + 1))?;
        }
        Ok(())
    }))
}

/// What became of a message. Millions of them wait for the end of an import.
enum Told {
    New(RecordId),
    Known(RecordId),
    NotAdded(&'static str, Box<str>),
}

impl Told {
    fn document(self, number: usize) -> Value {
        match self {
            Self::New(id) => json!({ "number": number, "outcome": "new", "id": id }),
            Self::Known(id) => json!({ "number": number, "outcome": "known", "id": id }),
            Self::NotAdded(word, why) => {
                json!({ "number": number, "outcome": word, "detail": why })
            }
        }
    }
}

/// Judges and adds each report; what became of each is true once this returns.
fn run(
    store: &Store,
    tenant: &Tenant,
    mut waiting: mpsc::Receiver<Result<Report, String>>,
    now: Timestamp,
) -> Result<Vec<Told>, String> {
    let mut importer = store.import().map_err(|error| error.to_string())?;
    let mut outcomes = Vec::new();
    while let Some(report) = waiting.blocking_recv() {
        outcomes.push(match report {
            Ok(report) => add(&mut importer, tenant, report, now)?,
            Err(broken) => Told::NotAdded("failed", broken.into()),
        });
    }
    importer.finish().map_err(|error| error.to_string())?;
    Ok(outcomes)
}

fn add(
    importer: &mut Importer,
    tenant: &Tenant,
    report: Report,
    now: Timestamp,
) -> Result<Told, String> {
    if let Err(refused) = judge(&report, tenant, Proof::Needed) {
        return Ok(Told::NotAdded(refused.outcome, refused.detail.into()));
    }
    // Retention counts from the report's own date, which its writer may have set to any day.
    let own = report
        .envelope
        .received
        .or(report.envelope.sent)
        .or(report.inner.date);
    let new = NewReport {
        tenant: tenant.name.clone(),
        region: None,
        arrived: own.unwrap_or(now).min(now),
        peer: "import".into(),
        report,
    };
    let imported = importer.add(new).map_err(|error| error.to_string())?;
    Ok(match imported {
        Imported::New(committed) => Told::New(committed.record),
        Imported::Known(committed) => Told::Known(committed.record),
    })
}

/// Cuts the request into messages.
struct Messages {
    body: BodyDataStream,
    /// What of the last piece was not used yet.
    rest: Bytes,
}

impl Messages {
    fn new(body: Body) -> Self {
        Self {
            body: body.into_data_stream(),
            rest: Bytes::new(),
        }
    }

    /// Hands the next message to `take`, piece by piece; `false` at the end.
    async fn next(&mut self, mut take: impl FnMut(&[u8])) -> Result<bool, String> {
        let mut length = [0; 8];
        let mut had = 0;
        while had < length.len() {
            if self.rest.is_empty() && !self.fill().await? {
                return if had == 0 { Ok(false) } else { Err(cut()) };
            }
            let piece = self.rest.split_to(self.rest.len().min(length.len() - had));
            for octet in piece {
                if let Some(place) = length.get_mut(had) {
                    *place = octet;
                }
                had += 1;
            }
        }
        let mut left = u64::from_be_bytes(length);
        while left > 0 {
            if self.rest.is_empty() && !self.fill().await? {
                return Err(cut());
            }
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            let piece = self.rest.split_to(self.rest.len().min(most));
            take(&piece);
            left -= piece.len() as u64;
        }
        Ok(true)
    }

    /// Waits for more octets; `false` if there are none.
    async fn fill(&mut self) -> Result<bool, String> {
        match self.body.next().await {
            Some(Ok(piece)) => {
                self.rest = piece;
                Ok(true)
            }
            Some(Err(error)) => Err(error.to_string()),
            None => Ok(false),
        }
    }
}

fn cut() -> String {
    "the message was cut off; what came before it was taken".into()
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn messages_are_cut_wherever_the_pieces_are() {
        let mut request = Vec::new();
        for message in ["one", "", "three three"] {
            request.extend_from_slice(&(message.len() as u64).to_be_bytes());
            request.extend_from_slice(message.as_bytes());
        }
        for size in 1..request.len() {
            let pieces: Vec<_> = request
                .chunks(size)
                .map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece)))
                .collect();
            let mut messages = Messages::new(Body::from_stream(stream::iter(pieces)));
            let mut found = Vec::new();
            loop {
                let mut message = Vec::new();
                if !messages
                    .next(|octets| message.extend_from_slice(octets))
                    .await
                    .unwrap()
                {
                    break;
                }
                found.push(String::from_utf8(message).unwrap());
            }
            assert_eq!(found, ["one", "", "three three"], "pieces of {size}");
        }
    }

    #[tokio::test]
    async fn a_request_that_is_cut_off_is_an_error() {
        let mut messages = Messages::new(Body::from(vec![0, 0, 0, 0, 0, 0, 0, 9, b'x']));
        assert!(messages.next(|_| {}).await.is_err());
        let mut messages = Messages::new(Body::from(vec![0, 0, 0]));
        assert!(messages.next(|_| {}).await.is_err());
    }
}
