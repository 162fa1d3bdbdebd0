//! A request to a job: records, permissions, mailboxes. Reads, changes nothing.

use std::collections::HashMap;

use super::{Inner, Request, RetractError, clock};
use crate::directory::{Mailbox, Resolution, Resolver};
use crate::graph::api::{Answer, Failure, Request as GraphRequest, Trouble};
use crate::graph::client::{Client, ClientError};
use crate::graph::folder::WellKnown;
use crate::index::{Record, Store, StoreError};
use crate::mail::{Address, TenantName};
use crate::retract::Action;
use crate::retract::guard::Facts;
use crate::retract::item::State;
use crate::retract::job::{Job, JobState};
use crate::retract::plan::{JobRecord, Sibling, addresses, items};

/// What reads users and their addresses, least first.
const READS_USERS: &[&str] = &[
    "User.Read.All",
    "User.ReadWrite.All",
    "Directory.Read.All",
    "Directory.ReadWrite.All",
];

/// What moves messages.
const MOVES_MAIL: &str = "Mail.ReadWrite";

/// Mailboxes that are asked whether we may, where the token does not say.
const PROBES: usize = 5;

/// A job, not stored yet, and the client that will run it.
pub(super) async fn plan(worker: &Inner, request: &Request) -> Result<(Job, Client), RetractError> {
    if request.action == Action::HardDelete {
        return Err(RetractError::HardDelete);
    }
    let (tenant, records) = records(worker, request).await?;
    let client = worker.client(&tenant)?;
    let mail_role = check_roles(&client).await?;
    let setup = worker.setup.load_full();
    let domains = setup.config.tenant(tenant.as_str());
    let domains = domains.map(|tenant| tenant.domains.as_slice());
    let domains = domains.unwrap_or_default();
    let resolved = resolve(&client, domains, &addresses(&records)).await?;
    let items = items(&records, &resolved);
    if !mail_role {
        probe(&client, &resolved).await?;
    }
    let copies = items
        .iter()
        .filter(|item| item.state == State::Pending)
        .count();
    let most = setup.config.retraction.max_copies_without_approval;
    let state = match (request.dry_run, copies as u64 > most) {
        (true, _) => JobState::Planned,
        (false, true) => JobState::AwaitingApproval,
        (false, false) => JobState::Running,
    };
    let job = Job {
        id: (!request.dry_run).then(new_id),
        tenant,
        state,
        action: request.action,
        created: clock::now().wall,
        by: request.by.clone(),
        reason: request.reason.clone(),
        records,
        items,
    };
    Ok((job, client))
}

/// `job_` and 26 characters of lower-case base32, as record ids have them.
fn new_id() -> String {
    let text = data_encoding::BASE32_NOPAD.encode(uuid::Uuid::now_v7().as_bytes());
    format!("job_{}", text.to_ascii_lowercase())
}

/// The records, each once, and whose they are.
async fn records(
    worker: &Inner,
    request: &Request,
) -> Result<(TenantName, Vec<JobRecord>), RetractError> {
    let (store, ids) = (worker.store.clone(), request.records.clone());
    let found = tokio::task::spawn_blocking(move || {
        let read = |id| {
            let record = store.record(id)?;
            let siblings = match &record {
                Some(record) => siblings(&store, record)?,
                None => Vec::new(),
            };
            Ok((id, record, siblings))
        };
        ids.into_iter()
            .map(read)
            .collect::<Result<Vec<_>, StoreError>>()
    });
    let found = found
        .await
        .map_err(|error| RetractError::Index(error.to_string()))?;
    let found = found.map_err(|error| RetractError::Index(error.to_string()))?;
    let (mut tenants, mut records): (Vec<TenantName>, Vec<JobRecord>) = (Vec::new(), Vec::new());
    for (id, record, siblings) in found {
        let record = record.ok_or(RetractError::UnknownRecord(id))?;
        if !tenants.contains(&record.tenant) {
            tenants.push(record.tenant.clone());
        }
        // Several names may be of one record.
        if !records.iter().any(|known| known.id == record.id) {
            let record = job_record(&record, siblings, request.recipients.as_deref())?;
            records.push(record);
        }
    }
    match tenants.as_slice() {
        [] => Err(RetractError::NoRecords),
        [_] if records.iter().all(|record| record.recipients.is_empty()) => {
            Err(RetractError::NoRecipients)
        }
        [tenant] => Ok((tenant.clone(), records)),
        _ => Err(RetractError::SeveralTenants(tenants)),
    }
}

/// Other messages of the journal that have one of this one's Message-IDs.
fn siblings(store: &Store, record: &Record) -> Result<Vec<Sibling>, StoreError> {
    let mut siblings: Vec<Sibling> = Vec::new();
    for message_id in &record.message_ids {
        for other in store.by_message_id(Some(&record.tenant), message_id)? {
            let known = siblings.iter().any(|sibling| sibling.id == other.id);
            if !known && !record.ids.contains(&other.id) {
                siblings.push(Sibling {
                    id: other.id,
                    network_message_ids: other.network_message_ids,
                });
            }
        }
    }
    Ok(siblings)
}

/// Everything of a record that the job needs: the record may pass its retention meanwhile.
fn job_record(
    record: &Record,
    siblings: Vec<Sibling>,
    wanted: Option<&[Address]>,
) -> Result<JobRecord, RetractError> {
    let message_id = record.message_id.clone();
    let message_id = message_id.ok_or(RetractError::NoMessageId(record.id))?;
    let times = [
        record.sent,
        record.received,
        record.arrivals.0,
        record.arrivals.1,
    ];
    let recipients = record.recipients.iter().map(|recipient| &recipient.address);
    let recipients =
        recipients.filter(|address| wanted.is_none_or(|wanted| wanted.contains(address)));
    Ok(JobRecord {
        id: record.id,
        facts: Facts {
            also: record
                .message_ids
                .iter()
                .filter(|id| **id != message_id)
                .cloned()
                .collect(),
            message_id,
            network_message_ids: record.network_message_ids.clone(),
            times: times.into_iter().chain(record.inner.date).collect(),
            from: record.inner.from.clone(),
            sender: record.sender.clone(),
        },
        recipients: recipients.cloned().collect(),
        siblings,
    })
}

/// Looks the needed roles up in the token. `false`: it has no mail role at all, so whether a role of Exchange
/// (RBAC for Applications) lets us is still to be seen.
async fn check_roles(client: &Client) -> Result<bool, RetractError> {
    let Some(claims) = client.claims().await? else {
        // A token that cannot be read is for Graph to judge.
        return Ok(true);
    };
    let roles = claims.roles.as_deref().unwrap_or_default();
    let reads_users = claims.has_any(READS_USERS);
    let moves_mail = claims.has_any(&[MOVES_MAIL]);
    let other_mail = roles.iter().any(|role| role.starts_with("Mail."));
    let mut missing = Vec::new();
    if !moves_mail && (other_mail || !reads_users) {
        missing.push(MOVES_MAIL.to_owned());
    }
    if !reads_users {
        missing.push("User.Read.All".to_owned());
    }
    match missing.is_empty() {
        true => Ok(moves_mail),
        false => Err(RetractError::Permission {
            tenant: client.tenant().clone(),
            missing,
        }),
    }
}

/// Asks some mailboxes for their inbox, to see whether we may, without any role in the token: a role of Exchange
/// may hold for some of them.
async fn probe(
    client: &Client,
    resolved: &HashMap<Address, Resolution>,
) -> Result<(), RetractError> {
    let mut mailboxes: Vec<&Mailbox> = resolved
        .values()
        .filter_map(|resolution| match resolution {
            Resolution::Mailboxes { mailboxes, .. } => Some(mailboxes),
            _ => None,
        })
        .flatten()
        .collect();
    mailboxes.sort_by_cached_key(|mailbox| mailbox.address.folded());
    mailboxes.dedup();
    let mut denied = false;
    for mailbox in mailboxes.into_iter().take(PROBES) {
        let Ok(request) = GraphRequest::well_known(&mailbox.id, WellKnown::Inbox) else {
            continue;
        };
        let answer = client.call(&request).await?;
        match answer.folder().map_err(|failure| failure.trouble) {
            Err(Trouble::Denied | Trouble::DirectoryDenied) => denied = true,
            _ => return Ok(()),
        }
    }
    match denied {
        false => Ok(()),
        true => Err(RetractError::Permission {
            tenant: client.tenant().clone(),
            missing: vec![MOVES_MAIL.to_owned()],
        }),
    }
}

/// Asks the directory where the mail of these addresses ends up.
async fn resolve(
    client: &Client,
    domains: &[String],
    addresses: &[Address],
) -> Result<HashMap<Address, Resolution>, RetractError> {
    let (tenant, base) = (client.tenant().clone(), client.base().clone());
    let mut resolver = Resolver::new(tenant, base, domains, addresses);
    loop {
        let mut open: Vec<(usize, GraphRequest)> =
            resolver.requests().into_iter().enumerate().collect();
        if open.is_empty() {
            return Ok(resolver.finish());
        }
        while !open.is_empty() {
            let mut pages = Vec::new();
            for (position, request) in open {
                let answer = client.call(&request).await?;
                let next = resolver.answer(position, &answer);
                let next = next.map_err(|failure| refused(client, &failure, &answer))?;
                pages.extend(next.map(|next| (position, next)));
            }
            open = pages;
        }
    }
}

/// The directory answered a look-up with an error.
fn refused(client: &Client, failure: &Failure, answer: &Answer) -> RetractError {
    let tenant = client.tenant().clone();
    match failure.trouble {
        Trouble::Denied | Trouble::DirectoryDenied => RetractError::Permission {
            tenant,
            missing: vec!["User.Read.All".to_owned()],
        },
        Trouble::Throttled | Trouble::Transient if answer.status >= 500 || answer.status == 429 => {
            RetractError::Graph(ClientError::Refused(failure.clone()))
        }
        _ => RetractError::Directory {
            tenant,
            why: failure.to_string(),
        },
    }
}
