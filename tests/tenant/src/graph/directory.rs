//! `/users`, `/groups`, `/contacts`, `/organization`, `/domains`.

use serde_json::{Map, Value as Json, json};

use super::copies::mailbox;
use super::page::Wanted;
use super::{Answer, Context, Handled};
use crate::directory::{Directory, Entry, Owner, initial_domain, principal};
use crate::odata::evaluate::{Type, Value, check, holds};
use crate::odata::filter::{self, Expression, Literal, Matching, Operator};
use crate::settings::{Contact, Group, GroupKind, User, UserKind};
use crate::world::locked;

/// Roles that let a client read users, groups, contacts.
const USERS: [&str; 3] = ["User.Read.All", "User.ReadWrite.All", "Directory.Read.All"];
const GROUPS: [&str; 3] = [
    "GroupMember.Read.All",
    "Group.Read.All",
    "Directory.Read.All",
];
const CONTACTS: [&str; 2] = ["OrgContact.Read.All", "Directory.Read.All"];
/// Most conditions that `or` may join in one filter.
const ALTERNATIVES: usize = 15;
/// What users show without `$select`.
const USER_USUAL: [&str; 11] = [
    "businessPhones",
    "displayName",
    "givenName",
    "jobTitle",
    "mail",
    "mobilePhone",
    "officeLocation",
    "preferredLanguage",
    "surname",
    "userPrincipalName",
    "id",
];

/// Users, by filter.
pub(crate) fn list_users(context: &Context<'_>) -> Handled {
    context.need(&USERS)?;
    list(context, "users", "microsoft.graph.user", &|owner| {
        matches!(owner, Owner::User(_))
    })
}

/// Groups, by filter.
pub(crate) fn list_groups(context: &Context<'_>) -> Handled {
    context.need(&GROUPS)?;
    list(context, "groups", "microsoft.graph.group", &|owner| {
        matches!(owner, Owner::Group(_))
    })
}

/// Mail contacts, by filter.
pub(crate) fn list_contacts(context: &Context<'_>) -> Handled {
    context.need(&CONTACTS)?;
    list(
        context,
        "contacts",
        "microsoft.graph.orgContact",
        &|owner| matches!(owner, Owner::Contact(_)),
    )
}

/// One user by object id or principal name.
pub(crate) fn user(context: &Context<'_>, key: &str) -> Handled {
    context.need(&USERS)?;
    context.no_payload()?;
    context.options.only(&["select"])?;
    let state = locked(&context.world.state);
    let number = state.directory.user(key).ok_or_else(|| missing(key))?;
    Ok(Answer::json(
        200,
        select(
            context,
            &object(&state.directory, Owner::User(number)),
            "microsoft.graph.user",
        )?,
    ))
}

/// One group by object id.
pub(crate) fn group(context: &Context<'_>, key: &str) -> Handled {
    context.need(&GROUPS)?;
    context.no_payload()?;
    context.options.only(&["select"])?;
    let state = locked(&context.world.state);
    let number = state.directory.group(key).ok_or_else(|| missing(key))?;
    Ok(Answer::json(
        200,
        select(
            context,
            &object(&state.directory, Owner::Group(number)),
            "microsoft.graph.group",
        )?,
    ))
}

/// Members of a group; `cast` keeps those of one type.
pub(crate) fn members(
    context: &Context<'_>,
    key: &str,
    transitive: bool,
    cast: Option<&str>,
) -> Handled {
    context.need(&GROUPS)?;
    context.no_payload()?;
    context
        .options
        .only(&["select", "top", "skiptoken", "count", "filter"])?;
    if cast.is_some() && context.options.any() && !advanced(context) {
        return Err(unsupported());
    }
    let wanted = Wanted::by_token(context, 100, 999)?;
    let count = context.options.flag("count")? && context.eventual;
    let state = locked(&context.world.state);
    let directory = &state.directory;
    let number = directory.group(key).ok_or_else(|| missing(key))?;
    let mut members = directory.members(number, transitive);
    match cast.map(str::to_ascii_lowercase).as_deref() {
        None => {}
        Some("microsoft.graph.user") => members.retain(|member| matches!(member, Owner::User(_))),
        Some("microsoft.graph.group") => members.retain(|member| matches!(member, Owner::Group(_))),
        Some("microsoft.graph.orgcontact") => {
            members.retain(|member| matches!(member, Owner::Contact(_)))
        }
        Some(other) => {
            return Err(Answer::error(
                400,
                "BadRequest",
                format!("The cast '{other}' is not known."),
            ));
        }
    }
    let render = |member: &Owner| {
        let (_, type_name) = kind(*member);
        let mut shown = select(context, &object(directory, *member), type_name)?;
        shown["@odata.type"] = format!("#{type_name}").into();
        Ok::<Json, Answer>(shown)
    };
    let rendered: Vec<Json> = members.iter().map(render).collect::<Result<_, _>>()?;
    Ok(Answer::json(
        200,
        wanted.page(context, "directoryObjects", &rendered, count, Clone::clone),
    ))
}

/// The tenant.
pub(crate) fn organization(context: &Context<'_>) -> Handled {
    context.need(&["Organization.Read.All", "Directory.Read.All"])?;
    context.options.only(&["select"])?;
    let state = locked(&context.world.state);
    let domains = &state.directory.domains;
    let initial = initial_domain(domains);
    let verified = domains.iter().enumerate().map(|(position, domain)| {
        json!({ "capabilities": "Email, OfficeCommunicationsOnline", "isDefault": position == 0, "isInitial": *domain == initial, "name": domain, "type": "Managed" })
    });
    let tenant = json!({ "id": context.world.tenant_id, "displayName": context.world.name, "verifiedDomains": verified.collect::<Vec<_>>() });
    let tenant = select(context, &tenant, "microsoft.graph.organization")?;
    Ok(Answer::json(
        200,
        json!({ "@odata.context": "https://graph.microsoft.com/v1.0/$metadata#organization", "value": [tenant] }),
    ))
}

/// Its domains.
pub(crate) fn domains(context: &Context<'_>) -> Handled {
    context.need(&["Domain.Read.All", "Directory.Read.All"])?;
    context.options.only(&["select"])?;
    let state = locked(&context.world.state);
    let initial = initial_domain(&state.directory.domains);
    let domain = |(position, domain): (usize, &String)| {
        let found = json!({
            "id": domain, "authenticationType": "Managed", "isAdminManaged": true, "isDefault": position == 0, "isInitial": *domain == initial,
            "isRoot": true, "isVerified": true, "supportedServices": ["Email", "OfficeCommunicationsOnline"],
        });
        select(context, &found, "microsoft.graph.domain")
    };
    let domains: Vec<Json> = state
        .directory
        .domains
        .iter()
        .enumerate()
        .map(domain)
        .collect::<Result<_, _>>()?;
    Ok(Answer::json(
        200,
        json!({ "@odata.context": "https://graph.microsoft.com/v1.0/$metadata#domains", "value": domains }),
    ))
}

/// What kind of mailbox a user has.
pub(crate) fn mailbox_settings(context: &Context<'_>) -> Handled {
    context.need(&["MailboxSettings.Read", "MailboxSettings.ReadWrite"])?;
    context.no_payload()?;
    context.options.only(&["select"])?;
    let mut state = locked(&context.world.state);
    let (number, _) = mailbox(context, &mut state)?;
    let purpose = match state.directory.user_at(number).map(|user| user.is.kind) {
        Some(UserKind::Shared) => "shared",
        Some(UserKind::Room) => "room",
        _ => "user",
    };
    Ok(Answer::json(
        200,
        select(
            context,
            &json!({ "userPurpose": purpose }),
            "microsoft.graph.mailboxSettings",
        )?,
    ))
}

/// A collection of the directory.
fn list(
    context: &Context<'_>,
    url: &str,
    type_name: &str,
    wanted_kind: &dyn Fn(Owner) -> bool,
) -> Handled {
    context.no_payload()?;
    context
        .options
        .only(&["select", "filter", "top", "skiptoken", "count", "orderby"])?;
    let wanted = Wanted::by_token(context, 100, 999)?;
    let condition = context
        .options
        .text("filter")
        .map(filter::parse)
        .transpose()?;
    let needs_advanced = context.options.text("orderby").is_some() && condition.is_some();
    if let Some(condition) = &condition {
        check(condition, type_name, &filter_type)?;
        if (needs_advanced || is_advanced(condition)) && !advanced(context) {
            return Err(unsupported());
        }
        if condition.alternatives() > ALTERNATIVES {
            let message = format!(
                "Too many child clauses specified in search filter expression containing 'OR' operators: {}. Max allowed: {ALTERNATIVES}.",
                condition.alternatives()
            );
            return Err(Answer::error(400, "Request_UnsupportedQuery", message));
        }
    }
    // $count=true without the header is ignored.
    let count = context.options.flag("count")? && context.eventual;
    let state = locked(&context.world.state);
    let directory = &state.directory;
    select(context, &Json::Object(Map::new()), type_name)?;
    let candidates = candidates(directory, condition.as_ref());
    let fulfils = |owner: &Owner| {
        wanted_kind(*owner)
            && directory.is_listed(*owner)
            && condition.as_ref().is_none_or(|condition| {
                let object = object(directory, *owner);
                holds(condition, false, &|path| filter_value(&object, path))
            })
    };
    let mut found: Vec<Owner> = candidates.into_iter().filter(fulfils).collect();
    sort(context, directory, &mut found)?;
    let page = wanted.page(context, url, &found, count, |owner| {
        select(context, &object(directory, *owner), type_name).unwrap_or_default()
    });
    Ok(Answer::json(200, page))
}

/// `$orderby` by `displayName`, `mail` or `userPrincipalName`.
fn sort(context: &Context<'_>, directory: &Directory, found: &mut [Owner]) -> Result<(), Answer> {
    for (name, descending) in context.options.order()?.into_iter().rev() {
        if !["displayName", "mail", "userPrincipalName"].contains(&name.as_str()) {
            return Err(unsupported());
        }
        found.sort_by_cached_key(|owner| {
            object(directory, *owner)[&name]
                .as_str()
                .unwrap_or_default()
                .to_lowercase()
        });
        if descending {
            found.reverse();
        }
    }
    Ok(())
}

/// Who can fulfil a condition: those whom an index names, if the condition is only about addresses; else all.
fn candidates(directory: &Directory, condition: Option<&Expression>) -> Vec<Owner> {
    let mut found = Vec::new();
    if condition.is_some_and(|condition| by_index(directory, condition, &mut found)) {
        found.dedup();
        return found;
    }
    let number = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let users = (0..number(directory.users.len())).map(Owner::User);
    let groups = (0..number(directory.groups.len())).map(Owner::Group);
    users
        .chain(groups)
        .chain((0..number(directory.contacts.len())).map(Owner::Contact))
        .collect()
}

/// Adds whom the index names; false if the condition is about anything else.
fn by_index(directory: &Directory, condition: &Expression, found: &mut Vec<Owner>) -> bool {
    let mut add = |owner: Option<Owner>| {
        let new = owner.filter(|owner| !found.contains(owner));
        found.extend(new);
        true
    };
    match condition {
        Expression::Or(one, two) => {
            by_index(directory, one, found) && by_index(directory, two, found)
        }
        Expression::Compare(path, Operator::Eq, Literal::Text(text)) if path == "mail" => {
            add(directory.owner(text))
        }
        Expression::Compare(path, Operator::Eq, Literal::Text(text))
            if path == "userPrincipalName" || path == "id" =>
        {
            add(directory.user(text).map(Owner::User))
                && add(directory.group(text).map(Owner::Group))
        }
        Expression::Any(path, inner) if path == "proxyAddresses" => match &**inner {
            Expression::Compare(_, Operator::Eq, Literal::Text(text)) => {
                let address = text
                    .split_once(':')
                    .map_or(text.as_str(), |(_, address)| address);
                add(directory.owner(address))
            }
            _ => false,
        },
        _ => false,
    }
}

/// Whether a condition needs `ConsistencyLevel: eventual` and `$count=true`.
fn is_advanced(condition: &Expression) -> bool {
    match condition {
        Expression::And(one, two) | Expression::Or(one, two) => {
            is_advanced(one) || is_advanced(two)
        }
        Expression::Not(_)
        | Expression::Compare(_, Operator::Ne, _)
        | Expression::Compare(_, _, Literal::Null) => true,
        Expression::Match(matching, ..) => *matching != Matching::StartsWith,
        Expression::Any(_, inner) => is_advanced(inner),
        Expression::In(path, _) => path == "proxyAddresses",
        Expression::Compare(..) => false,
    }
}

fn advanced(context: &Context<'_>) -> bool {
    context.eventual && context.options.text("count") == Some("true")
}

fn unsupported() -> Answer {
    Answer::error(
        400,
        "Request_UnsupportedQuery",
        "Unsupported or invalid query filter clause specified; add ConsistencyLevel: eventual and $count=true.",
    )
}

fn missing(key: &str) -> Answer {
    let message = format!(
        "Resource '{key}' does not exist or one of its queried reference-property objects are not present."
    );
    Answer::error(404, "Request_ResourceNotFound", message)
}

/// The properties that `$select` names; the usual ones of users without it.
fn select(context: &Context<'_>, object: &Json, type_name: &str) -> Result<Json, Answer> {
    let Some(members) = object.as_object() else {
        return Ok(Json::Null);
    };
    let names = context.options.select()?;
    let unknown = names
        .iter()
        .flatten()
        .find(|name| !is_property(type_name, name));
    if let Some(name) = unknown {
        let message = format!(
            "Parsing OData Select and Expand failed: Could not find a property named '{name}' on type '{type_name}'."
        );
        return Err(Answer::error(400, "BadRequest", message));
    }
    let shown = |name: &str| match &names {
        // Unlike messages, directory objects do not show their id unless it is asked for.
        Some(names) => names.iter().any(|wanted| wanted == name),
        None => type_name != "microsoft.graph.user" || USER_USUAL.contains(&name),
    };
    Ok(members
        .iter()
        .filter(|(name, _)| shown(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect())
}

/// Whether a type has a property that this service knows of.
fn is_property(type_name: &str, name: &str) -> bool {
    const COMMON: [&str; 6] = [
        "id",
        "displayName",
        "mail",
        "mailNickname",
        "proxyAddresses",
        "onPremisesSyncEnabled",
    ];
    let own: &[&str] = match type_name {
        "microsoft.graph.user" => &[
            "businessPhones",
            "givenName",
            "jobTitle",
            "mobilePhone",
            "officeLocation",
            "preferredLanguage",
            "surname",
            "userPrincipalName",
            "accountEnabled",
            "userType",
            "otherMails",
            "assignedPlans",
        ],
        "microsoft.graph.group" => &[
            "description",
            "groupTypes",
            "mailEnabled",
            "securityEnabled",
            "visibility",
            "createdDateTime",
        ],
        "microsoft.graph.organization" => &["verifiedDomains"],
        "microsoft.graph.domain" => &[
            "authenticationType",
            "isAdminManaged",
            "isDefault",
            "isInitial",
            "isRoot",
            "isVerified",
            "supportedServices",
        ],
        "microsoft.graph.mailboxSettings" => &["userPurpose"],
        _ => &["givenName", "surname"],
    };
    COMMON.contains(&name) || own.contains(&name)
        // Members of several types are selected together.
        || type_name != "microsoft.graph.user" && name == "userPrincipalName"
}

/// The collection and the type of an owner.
const fn kind(owner: Owner) -> (&'static str, &'static str) {
    match owner {
        Owner::User(_) => ("users", "microsoft.graph.user"),
        Owner::Group(_) => ("groups", "microsoft.graph.group"),
        Owner::Contact(_) => ("contacts", "microsoft.graph.orgContact"),
    }
}

/// Everything that the directory shows of an owner.
fn object(directory: &Directory, owner: Owner) -> Json {
    match owner {
        Owner::User(number) => directory.user_at(number).map(user_object),
        Owner::Group(number) => directory.group_at(number).map(group_object),
        Owner::Contact(number) => directory.contacts.get(number as usize).map(contact_object),
    }
    .unwrap_or_default()
}

fn user_object(entry: &Entry<User>) -> Json {
    let user = &entry.is;
    let (given, surname) = user
        .name
        .split_once(' ')
        .map_or((Some(user.name.as_str()), None), |(given, surname)| {
            (Some(given), Some(surname))
        });
    let mut proxies = vec![format!("SMTP:{}", user.address)];
    proxies.extend(user.aliases.iter().map(|alias| format!("smtp:{alias}")));
    let plans = if user.kind.has_mailbox() || user.kind == UserKind::User {
        json!([{ "assignedDateTime": "2024-01-01T00:00:00Z", "capabilityStatus": "Enabled", "service": "exchange", "servicePlanId": "efb87545-963c-4e0d-99df-69c6916d9eb0" }])
    } else {
        json!([])
    };
    json!({
        "businessPhones": [], "displayName": user.name, "givenName": given, "jobTitle": null, "mail": user.address, "mobilePhone": null,
        "officeLocation": null, "preferredLanguage": null, "surname": surname, "userPrincipalName": principal(user), "id": entry.id.to_string(),
        "accountEnabled": matches!(user.kind, UserKind::User | UserKind::Guest | UserKind::OnPremises | UserKind::Unlicensed),
        "userType": if user.kind == UserKind::Guest { "Guest" } else { "Member" },
        "mailNickname": user.address.split('@').next(), "otherMails": [], "proxyAddresses": proxies, "assignedPlans": plans,
        "onPremisesSyncEnabled": (user.kind == UserKind::OnPremises).then_some(true),
    })
}

fn group_object(entry: &Entry<Group>) -> Json {
    let group = &entry.is;
    json!({
        "id": entry.id.to_string(), "displayName": group.name, "description": null, "mail": group.address, "mailEnabled": true,
        "mailNickname": group.address.split('@').next(), "proxyAddresses": [format!("SMTP:{}", group.address)],
        "securityEnabled": group.kind == GroupKind::Security, "visibility": null, "createdDateTime": "2024-01-01T00:00:00Z",
        "groupTypes": if group.kind == GroupKind::Microsoft365 { json!(["Unified"]) } else { json!([]) },
        "onPremisesSyncEnabled": null,
    })
}

fn contact_object(entry: &Entry<Contact>) -> Json {
    let contact = &entry.is;
    json!({
        "id": entry.id.to_string(), "displayName": contact.name, "givenName": null, "surname": null, "mail": contact.address,
        "mailNickname": contact.address.split('@').next(), "proxyAddresses": [format!("SMTP:{}", contact.address)], "onPremisesSyncEnabled": null,
    })
}

/// What can be filtered by.
fn filter_type(path: &str) -> Option<Type> {
    Some(match path {
        "id" | "displayName" | "mail" | "mailNickname" | "userPrincipalName" | "givenName"
        | "surname" | "userType" => Type::Text,
        "accountEnabled" | "mailEnabled" | "securityEnabled" => Type::Bool,
        "proxyAddresses" | "otherMails" | "groupTypes" => Type::Texts,
        "assignedPlans" | "businessPhones" | "jobTitle" | "mobilePhone" => Type::Unfilterable,
        _ => return None,
    })
}

fn filter_value(object: &Json, path: &str) -> Value {
    match object.get(path) {
        Some(Json::String(text)) => Value::Text(text.clone()),
        Some(Json::Bool(flag)) => Value::Bool(*flag),
        Some(Json::Array(items)) => Value::Texts(
            items
                .iter()
                .filter_map(|item| item.as_str().map(ToOwned::to_owned))
                .collect(),
        ),
        _ => Value::Null,
    }
}
