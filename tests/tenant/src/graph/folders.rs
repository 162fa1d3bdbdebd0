//! `/mailFolders`: list, read, make.

use serde_json::{Value as Json, json};

use super::copies::mailbox;
use super::message::folder_id;
use super::page::Wanted;
use super::{Answer, Context, Handled};
use crate::ids::{Id, Kind};
use crate::mailbox::{FolderNumber, Mailbox, ROOT, is_documented, well_known};
use crate::world::locked;

/// Roles that let a client see folders.
const READ: [&str; 4] = [
    "Mail.ReadBasic.All",
    "Mail.ReadBasic",
    "Mail.Read",
    "Mail.ReadWrite",
];

/// The folder that an id or a well-known name names.
///
/// # Errors
///
/// 400 for a malformed id or an unknown name, 404 for a folder that is not in this mailbox.
pub(crate) fn find(
    context: &Context<'_>,
    number: u32,
    mailbox: &Mailbox,
    key: &str,
) -> Result<FolderNumber, Answer> {
    let known =
        well_known(key).filter(|_| is_documented(key) || context.conduct.guesses.recoverable_names);
    if let Some(folder) = known {
        return Ok(folder);
    }
    if key.to_ascii_lowercase().starts_with("archivemsgfolderroot")
        || key.to_ascii_lowercase().starts_with("archiverecoverable")
    {
        return Err(Answer::error(
            404,
            "ErrorInvalidMailboxItemId",
            "Item Id doesn't belong to the current mailbox.",
        ));
    }
    let malformed = || Answer::error(400, "ErrorInvalidIdMalformed", "Id is malformed.");
    let id = Id::parse(key)
        .filter(|id| id.kind == Kind::Folder)
        .ok_or_else(malformed)?;
    if id.tenant != context.world.tag || id.mailbox != number {
        return Err(Answer::error(
            404,
            "ErrorInvalidMailboxItemId",
            "Item Id doesn't belong to the current mailbox.",
        ));
    }
    let folder = FolderNumber::try_from(id.item)
        .ok()
        .filter(|folder| mailbox.has_folder(*folder));
    folder.ok_or_else(|| {
        Answer::error(
            404,
            "ErrorFolderNotFound",
            "The specified folder could not be found in the store.",
        )
    })
}

/// The folders below one; without `includeHiddenFolders=true` only the visible ones.
pub(crate) fn list(context: &Context<'_>, parent: Option<&str>) -> Handled {
    context.need(&READ)?;
    context.no_payload()?;
    context.options.only(&[
        "top",
        "skip",
        "skiptoken",
        "select",
        "includehiddenfolders",
        "count",
    ])?;
    let wanted = Wanted::by_skip(context, 10, 1000)?;
    let (hidden, count) = (
        context.options.flag("includehiddenfolders")?,
        context.options.flag("count")?,
    );
    let selection = selection(context)?;
    let mut state = locked(&context.world.state);
    let (number, mailbox) = mailbox(context, &mut state)?;
    let parent = parent.map_or(Ok(ROOT), |key| find(context, number, mailbox, key))?;
    let below = |folder: &FolderNumber| {
        mailbox
            .folder(*folder)
            .is_some_and(|(_, above, is_hidden)| above == Some(parent) && (hidden || !is_hidden))
    };
    let folders: Vec<FolderNumber> = mailbox.folders().filter(below).collect();
    let page = wanted.page(
        context,
        "users('')/mailFolders",
        &folders,
        count,
        |folder| json(context, number, mailbox, *folder, selection.as_deref()),
    );
    Ok(Answer::json(200, page))
}

/// One folder.
pub(crate) fn one(context: &Context<'_>, key: &str) -> Handled {
    context.need(&READ)?;
    context.no_payload()?;
    context.options.only(&["select"])?;
    let selection = selection(context)?;
    let mut state = locked(&context.world.state);
    let (number, mailbox) = mailbox(context, &mut state)?;
    let folder = find(context, number, mailbox, key)?;
    Ok(Answer::json(
        200,
        json(context, number, mailbox, folder, selection.as_deref()),
    ))
}

/// A new folder at the top or below another.
pub(crate) fn create(context: &Context<'_>, parent: Option<&str>) -> Handled {
    context.need(&["Mail.ReadWrite"])?;
    context.options.only(&[])?;
    let members = context.members(&["displayName", "isHidden"])?;
    let display = members
        .get("displayName")
        .and_then(Json::as_str)
        .filter(|name| !name.is_empty());
    let display = display.ok_or_else(|| {
        Answer::error(
            400,
            "ErrorInvalidRequest",
            "The property displayName is missing.",
        )
    })?;
    let hidden = members
        .get("isHidden")
        .and_then(Json::as_bool)
        .unwrap_or(false);
    let mut state = locked(&context.world.state);
    let (number, mailbox) = mailbox(context, &mut state)?;
    let parent = parent.map_or(Ok(ROOT), |key| find(context, number, mailbox, key))?;
    let taken = mailbox.folders().any(|folder| {
        mailbox.folder(folder).is_some_and(|(name, above, _)| {
            above == Some(parent) && name.eq_ignore_ascii_case(display)
        })
    });
    if taken {
        return Err(Answer::error(
            409,
            "ErrorFolderExists",
            "A folder with the specified name already exists.",
        ));
    }
    let folder = mailbox.add_folder(display, parent, hidden);
    Ok(Answer::json(
        201,
        json(context, number, mailbox, folder, None),
    ))
}

/// The properties of a folder.
const PROPERTIES: [&str; 7] = [
    "id",
    "displayName",
    "parentFolderId",
    "childFolderCount",
    "unreadItemCount",
    "totalItemCount",
    "isHidden",
];

fn selection(context: &Context<'_>) -> Result<Option<Vec<String>>, Answer> {
    let Some(names) = context.options.select()? else {
        return Ok(None);
    };
    match names
        .iter()
        .find(|name| !PROPERTIES.contains(&name.as_str()))
    {
        None => Ok(Some(names)),
        Some(name) => {
            let message = format!(
                "Could not find a property named '{name}' on type 'microsoft.graph.mailFolder'."
            );
            Err(Answer::error(400, "BadRequest", message))
        }
    }
}

fn json(
    context: &Context<'_>,
    number: u32,
    mailbox: &Mailbox,
    folder: FolderNumber,
    selection: Option<&[String]>,
) -> Json {
    let (display, parent, hidden) = mailbox.folder(folder).unwrap_or_default();
    let children = mailbox.folders().filter(|child| {
        mailbox
            .folder(*child)
            .is_some_and(|(_, above, is_hidden)| above == Some(folder) && !is_hidden)
    });
    let items = || mailbox.copies.iter().filter(|copy| copy.folder == folder);
    let mut body = json!({
        "id": folder_id(context, number, folder),
        "displayName": display,
        "parentFolderId": parent.map(|parent| folder_id(context, number, parent)),
        "childFolderCount": children.count(),
        "unreadItemCount": items().filter(|copy| !copy.is_read).count(),
        "totalItemCount": items().count(),
        "isHidden": hidden,
    });
    if let (Some(selection), Some(object)) = (selection, body.as_object_mut()) {
        object.retain(|name, _| name == "id" || selection.iter().any(|selected| selected == name));
    }
    body
}
