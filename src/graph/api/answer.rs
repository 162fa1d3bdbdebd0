//! What Graph answers.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::link::{LinkError, NextLink};
use super::trouble::Failure;
use crate::graph::cloud::Base;
use crate::graph::folder::FolderId;
use crate::mail::{Address, MessageId};

/// Header in which Exchange stamps its own id of a message, inside the organisation alone.
const NETWORK_MESSAGE_ID: &str = "X-MS-Exchange-Organization-Network-Message-Id";

/// Longest wait that is granted, whatever Graph asks.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// Id of a message that survives moves within its mailbox. Compared as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImmutableId(pub String);

/// An answer to one request: from its own exchange, or from within a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// How long Graph asks us to wait.
    pub retry_after: Option<Duration>,
    /// The JSON body; `null` if there is none.
    pub body: Value,
}

/// A successful answer that lacks what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MalformedAnswer {
    /// The body does not have the shape.
    #[error("Graph's answer cannot be read: {0}")]
    Shape(String),
    /// There are more pages, but not where they may be fetched.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// A page of a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Where the next one is.
    pub next: Option<NextLink>,
}

/// A message, as far as we select it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its id.
    pub id: ImmutableId,
    /// `internetMessageId`.
    pub message_id: Option<MessageId>,
    /// The folder that it is in.
    pub parent: Option<FolderId>,
    /// `from`.
    pub from: Option<Address>,
    /// `sender`.
    pub sender: Option<Address>,
    /// `receivedDateTime`.
    pub received: Option<Timestamp>,
    /// `isRead`.
    pub is_read: Option<bool>,
    /// Exchange's network message ids in its header, lower case; usually one, none in Sent Items.
    pub network_message_ids: Vec<String>,
}

/// A folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// Its id.
    pub id: FolderId,
    /// Its name in the user's language.
    pub name: Option<String>,
}

/// A user, as far as we select it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Object id.
    pub id: String,
    /// Sign-in name.
    pub principal_name: Option<String>,
    /// `mail`: usually the primary address.
    pub mail: Option<Address>,
    /// Addresses among `proxyAddresses`, the primary one first.
    pub addresses: Vec<Address>,
    /// `accountEnabled`.
    pub enabled: Option<bool>,
    /// `userType` is `Guest`.
    pub guest: bool,
    /// Whether one of `assignedPlans` is an enabled Exchange plan; `None` if Graph did not say.
    pub exchange_plan: Option<bool>,
    /// `onPremisesSyncEnabled`.
    pub synced: Option<bool>,
}

impl User {
    /// The address that mail to this user's mailbox goes to.
    pub fn primary(&self) -> Option<&Address> {
        self.addresses.first().or(self.mail.as_ref())
    }
}

/// A group, as far as we select it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Object id.
    pub id: String,
    /// Addresses among `proxyAddresses` and `mail`.
    pub addresses: Vec<Address>,
    /// A Microsoft 365 group: it has a mailbox of its own, which the mail API does not reach.
    pub unified: bool,
}

impl Answer {
    /// The answer, if its status is a success.
    ///
    /// # Errors
    ///
    /// [`Failure`]: what Graph said instead.
    pub fn success(&self) -> Result<&Value, Failure> {
        if (200..300).contains(&self.status) {
            Ok(&self.body)
        } else {
            Err(Failure::read(self, false))
        }
    }

    /// A page of messages.
    ///
    /// # Errors
    ///
    /// [`Failure`]; its trouble is `Unknown` for a success that cannot be read.
    pub fn messages(&self, base: &Base) -> Result<Page<Message>, Failure> {
        self.page(base, RawMessage::into_message)
    }

    /// One message: an answer to a look-up or to a move.
    ///
    /// # Errors
    ///
    /// As [`messages`](Self::messages).
    pub fn message(&self) -> Result<Message, Failure> {
        self.one(RawMessage::into_message)
    }

    /// A folder.
    ///
    /// # Errors
    ///
    /// As [`messages`](Self::messages).
    pub fn folder(&self) -> Result<Folder, Failure> {
        self.one(|raw: RawFolder| Folder {
            id: FolderId(raw.id),
            name: raw.display_name,
        })
    }

    /// A page of users.
    ///
    /// # Errors
    ///
    /// As [`messages`](Self::messages).
    pub fn users(&self, base: &Base) -> Result<Page<User>, Failure> {
        self.page(base, RawUser::into_user)
    }

    /// One user.
    ///
    /// # Errors
    ///
    /// As [`messages`](Self::messages).
    pub fn user(&self) -> Result<User, Failure> {
        self.one(RawUser::into_user)
    }

    /// A page of groups.
    ///
    /// # Errors
    ///
    /// As [`messages`](Self::messages).
    pub fn groups(&self, base: &Base) -> Result<Page<Group>, Failure> {
        self.page(base, RawGroup::into_group)
    }

    fn one<R: for<'de> Deserialize<'de>, T>(&self, read: impl Fn(R) -> T) -> Result<T, Failure> {
        let raw = R::deserialize(self.success()?);
        let raw = raw.map_err(|error| MalformedAnswer::Shape(error.to_string()));
        raw.map(read)
            .map_err(|error| Failure::unreadable(self.status, error))
    }

    fn page<R: for<'de> Deserialize<'de>, T>(
        &self,
        base: &Base,
        read: impl Fn(R) -> T,
    ) -> Result<Page<T>, Failure> {
        let page = self.one(|raw: RawPage<R>| raw)?;
        let next = page
            .next
            .map(|link| NextLink::parse(base, &link))
            .transpose();
        let next = next.map_err(MalformedAnswer::from);
        Ok(Page {
            next: next.map_err(|error| Failure::unreadable(self.status, error))?,
            items: page.value.into_iter().map(read).collect(),
        })
    }
}

/// Reads `Retry-After` (RFC 9110 §10.2.3): seconds, or a date that is compared with `now`.
pub fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    let wait = if let Ok(seconds) = text.parse::<u64>() {
        Duration::from_secs(seconds)
    } else {
        let until = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
        Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[derive(Deserialize)]
struct RawPage<T> {
    value: Vec<T>,
    #[serde(rename = "@odata.nextLink", default)]
    next: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMessage {
    id: String,
    #[serde(default, deserialize_with = "lenient")]
    internet_message_id: Option<String>,
    #[serde(default)]
    parent_folder_id: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    from: Option<RawRecipient>,
    #[serde(default, deserialize_with = "lenient")]
    sender: Option<RawRecipient>,
    #[serde(default, deserialize_with = "lenient")]
    received_date_time: Option<Timestamp>,
    #[serde(default, deserialize_with = "lenient")]
    is_read: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    internet_message_headers: Option<Vec<RawHeader>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRecipient {
    email_address: Option<RawEmailAddress>,
}

#[derive(Deserialize)]
struct RawEmailAddress {
    address: Option<String>,
}

#[derive(Deserialize)]
struct RawHeader {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    value: Option<String>,
}

impl RawMessage {
    fn into_message(self) -> Message {
        let address = |recipient: Option<RawRecipient>| {
            recipient?.email_address?.address?.parse::<Address>().ok()
        };
        let headers = self.internet_message_headers.unwrap_or_default();
        let network = headers.into_iter().filter(|header| {
            let name = header.name.as_deref().unwrap_or_default();
            name.trim().eq_ignore_ascii_case(NETWORK_MESSAGE_ID)
        });
        let id = self.internet_message_id;
        Message {
            id: ImmutableId(self.id),
            message_id: id.as_deref().and_then(MessageId::new),
            parent: self.parent_folder_id.map(FolderId),
            from: address(self.from),
            sender: address(self.sender),
            received: self.received_date_time,
            is_read: self.is_read,
            network_message_ids: network
                .map(|header| header.value.unwrap_or_default().trim().to_lowercase())
                .collect(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawFolder {
    id: String,
    #[serde(default)]
    display_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawUser {
    id: String,
    #[serde(default)]
    user_principal_name: Option<String>,
    #[serde(default)]
    mail: Option<String>,
    #[serde(default)]
    proxy_addresses: Option<Vec<String>>,
    #[serde(default)]
    account_enabled: Option<bool>,
    #[serde(default)]
    user_type: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    assigned_plans: Option<Vec<RawPlan>>,
    #[serde(default)]
    on_premises_sync_enabled: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPlan {
    #[serde(default)]
    service: Option<String>,
    #[serde(default)]
    capability_status: Option<String>,
}

impl RawUser {
    fn into_user(self) -> User {
        let exchange_plan = self.assigned_plans.map(|plans| {
            plans.iter().any(|plan| {
                let service = plan.service.as_deref().unwrap_or_default();
                let status = plan.capability_status.as_deref().unwrap_or_default();
                // "Warning" is the grace period in which the mailbox still works.
                service.eq_ignore_ascii_case("exchange") && matches!(status, "Enabled" | "Warning")
            })
        });
        User {
            id: self.id,
            principal_name: self.user_principal_name,
            mail: self.mail.and_then(|mail| mail.parse().ok()),
            addresses: proxy_addresses(self.proxy_addresses.as_deref().unwrap_or_default()),
            enabled: self.account_enabled,
            guest: self.user_type.as_deref() == Some("Guest"),
            exchange_plan,
            synced: self.on_premises_sync_enabled,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawGroup {
    id: String,
    #[serde(default)]
    mail: Option<String>,
    #[serde(default)]
    proxy_addresses: Option<Vec<String>>,
    #[serde(default)]
    group_types: Option<Vec<String>>,
}

impl RawGroup {
    fn into_group(self) -> Group {
        let mut addresses = proxy_addresses(self.proxy_addresses.as_deref().unwrap_or_default());
        addresses.extend(self.mail.and_then(|mail| mail.parse().ok()));
        let types = self.group_types.unwrap_or_default();
        Group {
            id: self.id,
            addresses,
            unified: types.iter().any(|kind| kind == "Unified"),
        }
    }
}

/// The mail addresses among `SMTP:primary`, `smtp:alias`, `SIP:…`, `X500:…`; the primary one first.
fn proxy_addresses(entries: &[String]) -> Vec<Address> {
    let of = |prefix: &'static str| {
        let rest = entries
            .iter()
            .filter_map(move |entry| entry.strip_prefix(prefix));
        rest.filter_map(|address| address.parse().ok())
    };
    of("SMTP:").chain(of("smtp:")).collect()
}

/// A field whose odd value is as good as a missing one: the guard asks for what it needs.
fn lenient<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: for<'any> Deserialize<'any>,
{
    let value = Value::deserialize(deserializer)?;
    Ok(T::deserialize(&value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::api::Trouble;
    use serde_json::json;

    fn ok(body: Value) -> Answer {
        Answer {
            status: 200,
            retry_after: None,
            body,
        }
    }

    fn base() -> Base {
        Base::parse("https://graph.example/v1.0").unwrap()
    }

    #[test]
    fn messages_with_more_and_with_less() {
        let full = ok(json!({"value": [{
            "@odata.etag": "x", "id": "m1", "internetMessageId": "<a@x>", "parentFolderId": "f",
            "from": {"emailAddress": {"name": "A", "address": "a@x"}}, "sender": null,
            "receivedDateTime": "2026-01-31T00:00:00Z", "isRead": false, "unknown": [1],
            "internetMessageHeaders": [
                {"name": "Subject", "value": "s"},
                {"name": "x-ms-exchange-organization-network-message-id", "value": " ABC "}]
        }, {"id": "m2"}], "@odata.nextLink": "https://graph.example/v1.0/next"}));
        let page = full.messages(&base()).unwrap();
        assert_eq!(page.next.unwrap().as_str(), "/next");
        let [first, second] = page.items.as_slice() else {
            panic!("two messages");
        };
        assert_eq!(first.message_id.as_ref().unwrap().as_str(), "a@x");
        assert_eq!(first.network_message_ids, ["abc"]);
        assert_eq!(first.from.as_ref().unwrap().as_str(), "a@x");
        assert_eq!(
            (first.is_read, first.received.is_some()),
            (Some(false), true)
        );
        assert_eq!(second.id, ImmutableId("m2".into()));
        assert_eq!(
            (second.message_id.clone(), second.parent.clone()),
            (None, None)
        );
    }

    #[test]
    fn what_we_depend_on_must_be_there() {
        for (name, body) in [
            ("no value", json!({})),
            ("no id", json!({"value": [{"subject": "s"}]})),
            ("no object", json!("text")),
            (
                "foreign link",
                json!({"value": [], "@odata.nextLink": "https://evil.example/v1.0/"}),
            ),
        ] {
            let failure = ok(body).messages(&base()).unwrap_err();
            assert_eq!(failure.trouble, Trouble::Unknown, "{name}");
        }
    }

    #[test]
    fn users() {
        let answer = ok(json!({"value": [{
            "id": "u", "mail": null, "userType": "Member", "accountEnabled": true,
            "proxyAddresses": ["smtp:alias@x", "SIP:a@x", "SMTP:main@x"],
            "assignedPlans": [{"service": "exchange", "capabilityStatus": "Deleted"}]
        }]}));
        let page = answer.users(&base()).unwrap();
        let user = page.items.first().unwrap();
        assert_eq!(user.primary().unwrap().as_str(), "main@x");
        assert_eq!(user.addresses.len(), 2);
        assert_eq!(
            (user.exchange_plan, user.guest, user.synced),
            (Some(false), false, None)
        );
    }

    #[test]
    fn waits() {
        let now: Timestamp = "2026-01-31T00:00:00Z".parse().unwrap();
        for (text, seconds) in [
            ("0", Some(0)),
            (" 17 ", Some(17)),
            ("99999999999", Some(86_400)),
            ("Sat, 31 Jan 2026 00:00:30 GMT", Some(30)),
            ("Fri, 30 Jan 2026 00:00:30 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(retry_after(text, now), expected, "{text}");
        }
    }
}
