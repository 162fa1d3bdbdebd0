//! `$batch`: up to 20 requests in one exchange, each with its own answer.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::answer::{Answer, MalformedAnswer, retry_after};
use super::request::Request;

/// Requests in one batch (Graph documentation, "JSON batching").
pub const BATCH_REQUESTS: usize = 20;

/// The body of a batch. The answers come back by position in `requests`; preferences stand in
/// each request, since those of the batch itself are not inherited.
pub fn encode_batch(requests: &[Request]) -> Value {
    let requests = requests.iter().enumerate().map(|(position, request)| {
        let headers = request.headers().into_iter();
        let mut headers: Map<String, Value> = headers
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect();
        let mut item = Map::new();
        item.insert("id".to_owned(), position.to_string().into());
        item.insert("method".to_owned(), request.method().name().into());
        item.insert("url".to_owned(), request.target().into());
        if let Some(body) = request.body() {
            headers.insert("Content-Type".to_owned(), "application/json".into());
            item.insert("body".to_owned(), body.clone());
        }
        if !headers.is_empty() {
            item.insert("headers".to_owned(), headers.into());
        }
        Value::Object(item)
    });
    json!({ "requests": requests.collect::<Value>() })
}

/// The answers to a batch of `count` requests, by position. `None` stands where there is no answer: whether
/// that request was run is not known.
///
/// # Errors
///
/// [`MalformedAnswer`]: this is no answer to a batch at all.
pub fn decode_batch(
    body: &Value,
    count: usize,
    now: Timestamp,
) -> Result<Vec<Option<Answer>>, MalformedAnswer> {
    let raw = RawBatch::deserialize(body);
    let raw = raw.map_err(|error| MalformedAnswer::Shape(error.to_string()))?;
    let mut answers: Vec<Option<Answer>> = (0..count).map(|_| None).collect();
    for response in raw.responses {
        let position = response.id.parse::<usize>().ok();
        // Two answers to one request: neither is believed more than the other, the first stays.
        if let Some(slot @ None) = position.and_then(|position| answers.get_mut(position)) {
            *slot = Some(response.into_answer(now));
        }
    }
    Ok(answers)
}

#[derive(Deserialize)]
struct RawBatch {
    responses: Vec<RawResponse>,
}

#[derive(Deserialize)]
struct RawResponse {
    id: String,
    status: u16,
    #[serde(default)]
    headers: Option<Map<String, Value>>,
    #[serde(default)]
    body: Value,
}

impl RawResponse {
    fn into_answer(self, now: Timestamp) -> Answer {
        let headers = self.headers.unwrap_or_default();
        let wait = headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("retry-after"));
        let wait = wait.and_then(|(_, value)| match value {
            Value::String(text) => retry_after(text, now),
            Value::Number(number) => retry_after(&number.to_string(), now),
            _ => None,
        });
        Answer {
            status: self.status,
            retry_after: wait,
            body: self.body,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ImmutableId, MailboxId, Scope};
    use super::*;
    use crate::graph::folder::WellKnown;
    use crate::mail::TenantName;
    use std::time::Duration;

    #[test]
    fn every_mail_request_prefers_immutable_ids() {
        let mailbox = MailboxId {
            tenant: TenantName::new("t"),
            user: "u".into(),
        };
        let requests = [
            Request::locate(&mailbox, Scope::AllFolders, "<a>").unwrap(),
            Request::move_message(&mailbox, &ImmutableId("m".into()), WellKnown::JunkEmail)
                .unwrap(),
            Request::user(&mailbox.tenant, "u").unwrap(),
        ];
        let body = encode_batch(&requests);
        let headers = |n: usize| body["requests"][n]["headers"].clone();
        assert_eq!(headers(0)["Prefer"], "IdType=\"ImmutableId\"");
        assert_eq!(headers(1)["Prefer"], "IdType=\"ImmutableId\"");
        assert_eq!(headers(1)["Content-Type"], "application/json");
        assert_eq!(headers(2), Value::Null);
        assert_eq!(body["requests"][1]["method"], "POST");
        assert_eq!(body["requests"][2]["id"], "2");
    }

    #[test]
    fn answers_come_in_any_order_or_not_at_all() {
        let body = json!({"responses": [
            {"id": "2", "status": 429, "headers": {"retry-after": "7"}, "body": {"error": {}}},
            {"id": "0", "status": 204},
            {"id": "0", "status": 500},
            {"id": "9", "status": 200},
        ]});
        let answers = decode_batch(&body, 3, Timestamp::UNIX_EPOCH).unwrap();
        let statuses: Vec<_> = answers
            .iter()
            .map(|a| a.as_ref().map(|a| a.status))
            .collect();
        assert_eq!(statuses, [Some(204), None, Some(429)]);
        let wait = answers[2].as_ref().unwrap().retry_after;
        assert_eq!(wait, Some(Duration::from_secs(7)));
        assert!(decode_batch(&json!({}), 1, Timestamp::UNIX_EPOCH).is_err());
    }
}
