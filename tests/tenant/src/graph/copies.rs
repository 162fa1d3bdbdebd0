//! `/messages`: list, read, move, change, delete.

use serde_json::Value as Json;

use super::message::{self, Selection};
use super::page::Wanted;
use super::{Answer, Body, Context, Handled, folders, unknown};
use crate::clock;
use crate::ids::{Id, Kind};
use crate::mail::journal;
use crate::mailbox::{Copy, FolderNumber, Mailbox, PURGES, is_recoverable, well_known};
use crate::odata::evaluate::{Value, check, holds};
use crate::odata::filter::{self, Expression};
use crate::world::{State, locked};

/// Roles that let a client read mail.
const READ: [&str; 4] = [
    "Mail.ReadBasic.All",
    "Mail.ReadBasic",
    "Mail.Read",
    "Mail.ReadWrite",
];
/// Roles that let a client change mail.
const WRITE: [&str; 1] = ["Mail.ReadWrite"];

/// The messages of a mailbox (Recoverable Items apart) or of one folder.
pub(crate) fn list(context: &Context<'_>, folder: Option<&str>) -> Handled {
    context.need(&READ)?;
    context.no_payload()?;
    context.options.only(&[
        "select",
        "filter",
        "top",
        "skip",
        "skiptoken",
        "count",
        "orderby",
    ])?;
    let selection = Selection::new(context)?;
    let wanted = Wanted::by_skip(context, 10, 1000)?;
    let condition = condition(context)?;
    let order = order(context, condition.as_ref())?;
    let count = context.options.flag("count")?;
    let mut state = locked(&context.world.state);
    let (number, mailbox) = mailbox(context, &mut state)?;
    let folder = folder
        .map(|key| folders::find(context, number, mailbox, key))
        .transpose()?;
    let exact = context.conduct.guesses.message_id_exact;
    let within = |copy: &&Copy| match folder {
        Some(folder) => copy.folder == folder,
        None => !is_recoverable(copy.folder),
    };
    let fulfils = |copy: &&Copy| {
        let value = |path: &str| message::filter_value(context, number, copy, path);
        condition
            .as_ref()
            .is_none_or(|condition| holds(condition, exact, &value))
    };
    let mut copies: Vec<&Copy> = mailbox
        .copies
        .iter()
        .filter(within)
        .filter(fulfils)
        .collect();
    sort(context, number, &mut copies, &order);
    let url = "users('')/messages";
    let page = wanted.page(context, url, &copies, count, |copy| {
        message::json(context, number, copy, &selection)
    });
    Ok(Answer::json(200, page))
}

/// The condition of `$filter`, checked.
fn condition(context: &Context<'_>) -> Result<Option<Expression>, Answer> {
    let Some(text) = context.options.text("filter") else {
        return Ok(None);
    };
    let expression = filter::parse(text)?;
    check(
        &expression,
        "microsoft.graph.message",
        &message::filter_type,
    )?;
    Ok(Some(expression))
}

/// `$orderby`. With `$filter`, its properties must be the first that the filter names, in that order.
fn order(
    context: &Context<'_>,
    condition: Option<&Expression>,
) -> Result<Vec<(String, bool)>, Answer> {
    let order = context.options.order()?;
    for (name, _) in &order {
        if message::filter_type(name).is_none() {
            return Err(Answer::error(
                400,
                "BadRequest",
                format!(
                    "Could not find a property named '{name}' on type 'microsoft.graph.message'."
                ),
            ));
        }
    }
    if let Some(condition) = condition {
        let mut named: Vec<&str> = Vec::new();
        for path in condition.paths() {
            if !named.contains(&path) {
                named.push(path);
            }
        }
        let leads = order
            .iter()
            .enumerate()
            .all(|(position, (name, _))| named.get(position) == Some(&name.as_str()));
        if !leads {
            return Err(Answer::error(
                400,
                "InefficientFilter",
                "The restriction or sort order is too complex for this operation.",
            ));
        }
    }
    Ok(order)
}

/// Newest first unless `$orderby` says otherwise.
fn sort(context: &Context<'_>, number: u32, copies: &mut [&Copy], order: &[(String, bool)]) {
    if order.is_empty() {
        copies.sort_by_key(|copy| (std::cmp::Reverse(copy.received), copy.item));
        return;
    }
    let key = |copy: &Copy, name: &str| match message::filter_value(context, number, copy, name) {
        Value::Time(at) => (at.as_second(), String::new()),
        Value::Bool(flag) => (i64::from(flag), String::new()),
        Value::Text(text) => (0, text.to_lowercase()),
        _ => (0, String::new()),
    };
    copies.sort_by(|one, two| {
        let orders = order.iter().map(|(name, descending)| {
            let order = key(one, name).cmp(&key(two, name));
            if *descending { order.reverse() } else { order }
        });
        orders.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
    });
}

/// Calls for one message.
pub(crate) fn one(
    context: &Context<'_>,
    method: &str,
    folder: Option<&str>,
    id: &str,
    rest: &[&str],
) -> Handled {
    match (method, rest) {
        ("GET", []) => read(context, folder, id),
        ("GET", ["$value"]) => octets(context, folder, id),
        ("PATCH", []) => update(context, folder, id),
        ("DELETE", []) => delete(context, folder, id),
        ("POST", ["move"]) => transfer(context, folder, id, false),
        ("POST", ["copy"]) => transfer(context, folder, id, true),
        ("POST", ["permanentDelete" | "permanentdelete"]) => permanent_delete(context, folder, id),
        _ => Err(unknown(context)),
    }
}

fn read(context: &Context<'_>, folder: Option<&str>, id: &str) -> Handled {
    context.need(&READ)?;
    context.no_payload()?;
    context.options.only(&["select"])?;
    let selection = Selection::new(context)?;
    let mut state = locked(&context.world.state);
    let (number, mailbox) = mailbox(context, &mut state)?;
    let copy = find(context, number, mailbox, folder, id)?;
    Ok(Answer::json(
        200,
        message::json(context, number, copy, &selection),
    ))
}

/// The message as octets, with what Exchange stamped on it.
fn octets(context: &Context<'_>, folder: Option<&str>, id: &str) -> Handled {
    context.need(&["Mail.Read", "Mail.ReadWrite"])?;
    context.options.only(&[])?;
    let mut state = locked(&context.world.state);
    let (number, mailbox) = mailbox(context, &mut state)?;
    let copy = find(context, number, mailbox, folder, id)?;
    let mut octets = Vec::with_capacity(copy.message.octets.len() + 1024);
    for (name, value) in copy
        .fork
        .into_iter()
        .flat_map(|fork| journal::stamp_fields(&copy.message, fork, &context.world.stamps))
    {
        octets.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    octets.extend_from_slice(&copy.message.octets);
    Ok(Answer {
        status: 200,
        headers: Vec::new(),
        body: Body::Mime(octets),
    })
}

/// `isRead` and `flag`.
fn update(context: &Context<'_>, folder: Option<&str>, id: &str) -> Handled {
    context.need(&WRITE)?;
    context.options.only(&[])?;
    let members = context.members(&["isRead", "flag"])?;
    let is_read = member(members.get("isRead"), Json::as_bool)?;
    let flag = members.get("flag").and_then(|flag| flag.get("flagStatus"));
    let flag = member(flag, |flag| {
        flag.as_str()
            .filter(|text| ["flagged", "notFlagged", "complete"].contains(text))
            .map(|text| text == "flagged")
    })?;
    let mut state = locked(&context.world.state);
    let (number, mailbox) = mailbox(context, &mut state)?;
    let item = find(context, number, mailbox, folder, id)?.item;
    let copy = mailbox.copy_mut(item).ok_or_else(not_found)?;
    copy.is_read = is_read.unwrap_or(copy.is_read);
    copy.is_flagged = flag.unwrap_or(copy.is_flagged);
    copy.modified = clock::now().as_second();
    Ok(Answer::json(
        200,
        message::json(context, number, copy, &Selection::usual()),
    ))
}

/// A member of the wanted type, if it is there.
fn member<'a, T>(
    value: Option<&'a Json>,
    read: impl Fn(&'a Json) -> Option<T>,
) -> Result<Option<T>, Answer> {
    let refusal = |value: &Json| {
        Answer::error(
            400,
            "RequestBodyRead",
            format!("Cannot convert the value {value} to the expected type."),
        )
    };
    value
        .map(|value| read(value).ok_or_else(|| refusal(value)))
        .transpose()
}

/// To Deleted Items; from there to Recoverable Items; from there nowhere.
fn delete(context: &Context<'_>, folder: Option<&str>, id: &str) -> Handled {
    context.need(&WRITE)?;
    context.no_payload()?;
    context.options.only(&[])?;
    let mut state = locked(&context.world.state);
    let (number, mailbox) = mailbox(context, &mut state)?;
    let (item, from) = place(find(context, number, mailbox, folder, id)?);
    let name = match well_known("deleteditems") {
        _ if is_recoverable(from) => {
            return Err(Answer::error(
                403,
                "ErrorCannotDeleteObject",
                "The object cannot be deleted.",
            ));
        }
        Some(deleted) if from == deleted => "recoverableitemsdeletions",
        _ => "deleteditems",
    };
    relocate(context, mailbox, item, well_known(name).unwrap_or(from));
    Ok(Answer::no_content())
}

/// `move` and `copy`.
fn transfer(context: &Context<'_>, folder: Option<&str>, id: &str, duplicate: bool) -> Handled {
    context.need(&WRITE)?;
    context.options.only(&[])?;
    let members = context.members(&["destinationId", "DestinationId"])?;
    let missing = || {
        Answer::error(
            400,
            "ErrorInvalidRequest",
            "The parameter destinationId is missing.",
        )
    };
    let destination = member(members.get("destinationId"), Json::as_str)?.ok_or_else(missing)?;
    let mut state = locked(&context.world.state);
    let (number, mailbox) = mailbox(context, &mut state)?;
    let (item, from) = place(find(context, number, mailbox, folder, id)?);
    let to = folders::find(context, number, mailbox, destination)?;
    let moved = if duplicate {
        mailbox.duplicate(item, to).ok_or_else(not_found)?
    } else if from == to && !context.conduct.guesses.move_again_succeeds {
        return Err(Answer::error(
            400,
            "ErrorMoveCopyFailed",
            "The move or copy operation failed.",
        ));
    } else {
        if from != to {
            relocate(context, mailbox, item, to);
        }
        item
    };
    let copy = mailbox.copy(moved).ok_or_else(not_found)?;
    Ok(Answer::json(
        201,
        message::json(context, number, copy, &Selection::usual()),
    ))
}

fn permanent_delete(context: &Context<'_>, folder: Option<&str>, id: &str) -> Handled {
    context.need(&WRITE)?;
    context.no_payload()?;
    context.options.only(&[])?;
    let mut state = locked(&context.world.state);
    let (number, mailbox) = mailbox(context, &mut state)?;
    let (item, from) = place(find(context, number, mailbox, folder, id)?);
    if from == PURGES {
        return Err(not_found());
    }
    if is_recoverable(from) && !context.conduct.guesses.purge_from_recoverable {
        return Err(Answer::error(
            403,
            "ErrorCannotDeleteObject",
            "The object cannot be deleted.",
        ));
    }
    relocate(context, mailbox, item, PURGES);
    Ok(Answer::no_content())
}

const fn place(copy: &Copy) -> (u32, FolderNumber) {
    (copy.item, copy.folder)
}

/// Moves an item: its default id changes, its immutable id does not.
fn relocate(context: &Context<'_>, mailbox: &mut Mailbox, item: u32, to: FolderNumber) {
    if let Some(copy) = mailbox.copy_mut(item) {
        copy.folder = to;
        copy.generation = copy.generation.wrapping_add(1);
        copy.modified = clock::now().as_second();
    }
    locked(&context.world.traffic).counts.moves += 1;
}

/// The mailbox that the request is about.
///
/// # Errors
///
/// 404: no such user, or one without a mailbox in the cloud.
pub(crate) fn mailbox<'a>(
    context: &Context<'_>,
    state: &'a mut State,
) -> Result<(u32, &'a mut Mailbox), Answer> {
    let key = context.path.get(1).copied().unwrap_or_default();
    let invalid = || {
        Answer::error(
            404,
            "ErrorInvalidUser",
            format!("The requested user '{key}' is invalid."),
        )
    };
    let number = context.user.ok_or_else(invalid)?;
    let user = state.directory.user_at(number).ok_or_else(invalid)?;
    if !user.is.kind.has_mailbox() {
        return Err(Answer::error(
            404,
            "MailboxNotEnabledForRESTAPI",
            "The mailbox is either inactive, soft-deleted, or is hosted on-premise.",
        ));
    }
    state
        .mailboxes
        .get_mut(number as usize)
        .map(|mailbox| (number, mailbox))
        .ok_or_else(invalid)
}

/// The copy with an id, in a folder if one is named.
fn find<'a>(
    context: &Context<'_>,
    number: u32,
    mailbox: &'a Mailbox,
    folder: Option<&str>,
    text: &str,
) -> Result<&'a Copy, Answer> {
    let malformed = || Answer::error(400, "ErrorInvalidIdMalformed", "Id is malformed.");
    let id = Id::parse(text)
        .filter(|id| matches!(id.kind, Kind::Default | Kind::Immutable))
        .ok_or_else(malformed)?;
    if id.tenant != context.world.tag {
        locked(&context.world.traffic).counts.foreign += 1;
    }
    if id.tenant != context.world.tag || id.mailbox != number {
        return Err(Answer::error(
            404,
            "ErrorInvalidMailboxItemId",
            "Item Id doesn't belong to the current mailbox.",
        ));
    }
    let copy = mailbox.copy(id.item).ok_or_else(not_found)?;
    let stale = id.kind == Kind::Default && id.generation != copy.generation;
    let hidden = folder.is_none()
        && is_recoverable(copy.folder)
        && !context.conduct.guesses.recoverable_by_id;
    let elsewhere = match folder {
        Some(key) => folders::find(context, number, mailbox, key)? != copy.folder,
        None => false,
    };
    if stale || hidden || elsewhere {
        Err(not_found())
    } else {
        Ok(copy)
    }
}

fn not_found() -> Answer {
    Answer::error(
        404,
        "ErrorItemNotFound",
        "The specified object was not found in the store.",
    )
}
