//! What a copy of a message looks like in Graph: properties to show and to filter by.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value as Json, json};

use super::{Answer, Context};
use crate::ids::{Id, Kind};
use crate::mail::{Person, compose, journal};
use crate::mailbox::Copy;
use crate::odata::evaluate::{Type, Value};

/// The properties of a message in the order that Graph gives them.
const PROPERTIES: [&str; 31] = [
    "id",
    "createdDateTime",
    "lastModifiedDateTime",
    "changeKey",
    "categories",
    "receivedDateTime",
    "sentDateTime",
    "hasAttachments",
    "internetMessageId",
    "subject",
    "bodyPreview",
    "importance",
    "parentFolderId",
    "conversationId",
    "conversationIndex",
    "isDeliveryReceiptRequested",
    "isReadReceiptRequested",
    "isRead",
    "isDraft",
    "webLink",
    "inferenceClassification",
    "body",
    "uniqueBody",
    "sender",
    "from",
    "toRecipients",
    "ccRecipients",
    "bccRecipients",
    "replyTo",
    "internetMessageHeaders",
    "flag",
];
/// Shown only if selected.
const ON_SELECT: [&str; 2] = ["internetMessageHeaders", "uniqueBody"];
/// Not shown with `Mail.ReadBasic.All` alone.
const NOT_BASIC: [&str; 4] = [
    "body",
    "bodyPreview",
    "uniqueBody",
    "internetMessageHeaders",
];

/// Which properties of a message to show.
#[derive(Debug)]
pub(crate) struct Selection(Vec<&'static str>);

impl Selection {
    /// Those that `$select` names, or the usual ones.
    ///
    /// # Errors
    ///
    /// 400 for a name that messages do not have.
    pub(crate) fn new(context: &Context<'_>) -> Result<Self, Answer> {
        let basic = context.need(&["Mail.Read", "Mail.ReadWrite"]).is_err();
        let shown = |name: &&str| !(basic && NOT_BASIC.contains(name));
        let Some(names) = context.options.select()? else {
            let usual = PROPERTIES
                .into_iter()
                .filter(|name| !ON_SELECT.contains(name))
                .filter(shown);
            return Ok(Self(usual.collect()));
        };
        let mut selected = vec!["id"];
        for name in &names {
            let known = PROPERTIES.iter().find(|known| *known == name).ok_or_else(|| {
                let message = format!("Parsing OData Select and Expand failed: Could not find a property named '{name}' on type 'microsoft.graph.message'.");
                Answer::error(400, "BadRequest", message)
            })?;
            if !selected.contains(known) && shown(known) {
                selected.push(known);
            }
        }
        Ok(Self(selected))
    }

    /// The usual properties.
    pub(crate) fn usual() -> Self {
        Self(
            PROPERTIES
                .into_iter()
                .filter(|name| !ON_SELECT.contains(name))
                .collect(),
        )
    }
}

/// The id of a copy, of the kind that the request prefers.
pub(crate) fn id(context: &Context<'_>, mailbox: u32, copy: &Copy) -> String {
    let (kind, generation) = if context.immutable {
        (Kind::Immutable, 0)
    } else {
        (Kind::Default, copy.generation)
    };
    let id = Id {
        kind,
        tenant: context.world.tag,
        mailbox,
        item: copy.item,
        generation,
    };
    id.text(context.conduct.links.slash_ids)
}

/// The id of a folder.
pub(crate) fn folder_id(context: &Context<'_>, mailbox: u32, folder: u16) -> String {
    let id = Id {
        kind: Kind::Folder,
        tenant: context.world.tag,
        mailbox,
        item: u32::from(folder),
        generation: 0,
    };
    id.text(context.conduct.links.slash_ids)
}

/// A copy as JSON.
pub(crate) fn json(
    context: &Context<'_>,
    mailbox: u32,
    copy: &Copy,
    selection: &Selection,
) -> Json {
    let mut object = Map::new();
    object.insert(
        "@odata.etag".into(),
        format!("W/\"{}\"", change_key(copy)).into(),
    );
    for name in &selection.0 {
        if let Some(value) = property(context, mailbox, copy, name) {
            object.insert((*name).into(), value);
        }
    }
    Json::Object(object)
}

/// One property; `None` where Graph leaves it out.
fn property(context: &Context<'_>, mailbox: u32, copy: &Copy, name: &str) -> Option<Json> {
    let message = &*copy.message;
    Some(match name {
        "id" => id(context, mailbox, copy).into(),
        "createdDateTime" | "receivedDateTime" => time(copy.received),
        "lastModifiedDateTime" => time(copy.modified),
        "sentDateTime" => time(message.sent.as_second()),
        "changeKey" => change_key(copy).into(),
        "categories" | "replyTo" => json!([]),
        "hasAttachments" => message.has_attachments.into(),
        "internetMessageId" => (*message.message_id).into(),
        "subject" => (*message.subject).into(),
        "bodyPreview" => message.body.chars().take(255).collect::<String>().into(),
        "importance" => "normal".into(),
        "parentFolderId" => folder_id(context, mailbox, copy.folder).into(),
        "conversationId" => STANDARD.encode(message.conversation.as_bytes()).into(),
        "conversationIndex" => STANDARD
            .encode([&[1, 0, 0, 0, 0, 0], &message.conversation.as_bytes()[..]].concat())
            .into(),
        "isDeliveryReceiptRequested" => Json::Null,
        "isReadReceiptRequested" | "isDraft" => false.into(),
        "isRead" => copy.is_read.into(),
        "webLink" => format!(
            "https://outlook.office365.com/owa/?ItemID={}&exvsurl=1&viewmodel=ReadMessageItem",
            id(context, mailbox, copy)
        )
        .into(),
        "inferenceClassification" => "focused".into(),
        "body" | "uniqueBody" => json!({ "contentType": "text", "content": &*message.body }),
        "sender" => person(message.sender.as_ref().unwrap_or(&message.from)),
        "from" => person(&message.from),
        "toRecipients" => people(&message.to),
        "ccRecipients" => people(&message.cc),
        "bccRecipients" => people(if copy.fork.is_none() {
            &message.bcc
        } else {
            &[]
        }),
        "internetMessageHeaders" => return headers(context, copy),
        "flag" => json!({ "flagStatus": if copy.is_flagged { "flagged" } else { "notFlagged" } }),
        _ => return None,
    })
}

/// The header fields of a delivered copy; a sender's own copy usually has none.
fn headers(context: &Context<'_>, copy: &Copy) -> Option<Json> {
    if copy.fork.is_none() && context.conduct.guesses.sent_without_headers {
        return None;
    }
    let fork = copy.fork.unwrap_or_default();
    let stamps = journal::stamp_fields(&copy.message, fork, &context.world.stamps);
    let stamps = stamps
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    let fields = stamps.chain(compose::fields(&copy.message.octets));
    Some(
        fields
            .map(|(name, value)| json!({ "name": name, "value": value }))
            .collect(),
    )
}

/// Changes with each change of the copy.
fn change_key(copy: &Copy) -> String {
    let flags = u8::from(copy.is_read) | u8::from(copy.is_flagged) << 1;
    let octets = [
        &copy.item.to_be_bytes()[..],
        &copy.generation.to_be_bytes(),
        &[flags],
        &copy.modified.to_be_bytes(),
    ]
    .concat();
    format!("CQAAAB{}", STANDARD.encode(octets))
}

fn time(seconds: i64) -> Json {
    Timestamp::from_second(seconds)
        .map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        .unwrap_or_default()
        .into()
}

fn person(person: &Person) -> Json {
    json!({ "emailAddress": { "name": &*person.name, "address": &*person.address } })
}

fn people(people: &[Person]) -> Json {
    people.iter().map(person).collect()
}

/// What kind of value a property has for `$filter`; `None` if messages have no such property.
pub(crate) fn filter_type(path: &str) -> Option<Type> {
    Some(match path {
        "internetMessageId"
        | "subject"
        | "conversationId"
        | "parentFolderId"
        | "importance"
        | "from/emailAddress/address"
        | "from/emailAddress/name"
        | "sender/emailAddress/address"
        | "sender/emailAddress/name"
        | "flag/flagStatus" => Type::Text,
        "receivedDateTime" | "sentDateTime" | "createdDateTime" | "lastModifiedDateTime" => {
            Type::Time
        }
        "isRead" | "hasAttachments" | "isDraft" => Type::Bool,
        "categories" => Type::Texts,
        "singleValueExtendedProperties" => Type::Records,
        _ if PROPERTIES.contains(&path.split('/').next().unwrap_or_default()) => Type::Unfilterable,
        _ => return None,
    })
}

/// The value of a property for `$filter` and `$orderby`.
pub(crate) fn filter_value(context: &Context<'_>, mailbox: u32, copy: &Copy, path: &str) -> Value {
    let message = &*copy.message;
    let at = |seconds| Value::Time(Timestamp::from_second(seconds).unwrap_or_default());
    match path {
        "internetMessageId" => Value::Text(message.message_id.to_string()),
        "subject" => Value::Text(message.subject.to_string()),
        "conversationId" => Value::Text(STANDARD.encode(message.conversation.as_bytes())),
        "parentFolderId" => Value::Text(folder_id(context, mailbox, copy.folder)),
        "importance" => Value::Text("normal".into()),
        "from/emailAddress/address" => Value::Text(message.from.address.to_string()),
        "from/emailAddress/name" => Value::Text(message.from.name.to_string()),
        "sender/emailAddress/address" => Value::Text(
            message
                .sender
                .as_ref()
                .unwrap_or(&message.from)
                .address
                .to_string(),
        ),
        "sender/emailAddress/name" => Value::Text(
            message
                .sender
                .as_ref()
                .unwrap_or(&message.from)
                .name
                .to_string(),
        ),
        "flag/flagStatus" => Value::Text(
            if copy.is_flagged {
                "flagged"
            } else {
                "notFlagged"
            }
            .into(),
        ),
        "receivedDateTime" | "createdDateTime" => at(copy.received),
        "lastModifiedDateTime" => at(copy.modified),
        "sentDateTime" => at(message.sent.as_second()),
        "isRead" => Value::Bool(copy.is_read),
        "hasAttachments" => Value::Bool(message.has_attachments),
        "isDraft" => Value::Bool(false),
        "categories" => Value::Texts(Vec::new()),
        // PidTagInternetMessageId ([MS-OXPROPS] 2.742).
        "singleValueExtendedProperties" => Value::Records(vec![vec![
            ("id", "String 0x1035".to_owned()),
            ("value", message.message_id.to_string()),
        ]]),
        _ => Value::Null,
    }
}
