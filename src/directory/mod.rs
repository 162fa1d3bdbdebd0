//! Addresses to mailboxes: what to ask of the tenant's directory, and what its answers mean. No I/O.
//!
//! In: the recipients of a job. Out: for each where its mail ends up ([`Resolution`]). Looked up in rounds:
//! users that have the address; groups that have it, and users without the tag of `user+tag@`; members of
//! the groups; users of that sign-in name. An address of the tenant that is in none of them belonged to
//! someone who is gone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::graph::api::{
    Answer, ControlCharacter, Failure, Group, MailboxId, OR_CLAUSES, Request, Trouble, User,
};
use crate::graph::cloud::Base;
use crate::mail::{Address, TenantName};

/// Why there is no mailbox that Graph reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Absent {
    /// A guest of the tenant, whose mail is elsewhere.
    Guest,
    /// The tenant has no user or group of this address (any more).
    DeletedUser,
    /// The mailbox is on premises.
    OnPremises,
    /// The user has no Exchange licence.
    NoLicence,
    /// The account is disabled and has no mailbox that answers.
    Disabled,
    /// The mailbox of a Microsoft 365 group, which the mail API does not reach.
    GroupMailbox,
    /// A group without members.
    EmptyGroup,
    /// No user has this address, and groups may not be read.
    NotPermitted,
    /// Not known why.
    Unknown,
}

/// A mailbox, as the directory knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mailbox {
    /// Tenant and object id.
    pub id: MailboxId,
    /// Primary address.
    pub address: Address,
    /// Why there is none, should Graph say that there is none.
    pub without: Absent,
}

/// Where the mail of an address ends up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// In these mailboxes (several: a group), and perhaps in places that cannot be reached.
    Mailboxes {
        /// Those that Graph reaches.
        mailboxes: Vec<Mailbox>,
        /// Places besides them, and why they cannot be reached.
        beside: Vec<Absent>,
    },
    /// Outside the tenant.
    External,
    /// Nowhere that Graph reaches.
    None(Absent),
}

/// Looks addresses up, a round of requests at a time.
#[derive(Debug)]
pub struct Resolver {
    tenant: TenantName,
    base: Base,
    domains: Vec<String>,
    open: BTreeMap<String, Open>,
    done: HashMap<Address, Resolution>,
    groups: HashMap<String, Members>,
    round: Round,
    asked: Vec<Question>,
}

/// An address that is not resolved yet.
#[derive(Debug)]
struct Open {
    address: Address,
    /// The group that has it.
    group: Option<String>,
    /// Whether a group has it may not be asked.
    hidden: bool,
}

/// What is known of a group.
#[derive(Debug, Default)]
struct Members {
    users: Vec<User>,
    unified: bool,
    /// Its members may not be read.
    hidden: bool,
}

/// A request that is under way: what for.
#[derive(Debug, Clone)]
enum Question {
    /// Which users have one of these addresses?
    Users(Vec<Sought>),
    /// Which groups have one of these?
    Groups(Vec<Sought>),
    /// Which users are in this group?
    Members(String),
    /// Which user signs in with this name?
    Named(String),
}

/// An address as it is asked for, and the open one (folded) that it stands for.
#[derive(Debug, Clone)]
struct Sought {
    ask: Address,
    open: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    Users,
    Groups,
    Members,
    Names,
    Over,
}

impl Resolver {
    /// Takes the addresses of one tenant. With `domains` given, what is in none of them is external.
    pub fn new(tenant: TenantName, base: Base, domains: &[String], addresses: &[Address]) -> Self {
        let mut resolver = Self {
            tenant,
            base,
            domains: domains.iter().map(|domain| domain.to_lowercase()).collect(),
            open: BTreeMap::new(),
            done: HashMap::new(),
            groups: HashMap::new(),
            round: Round::Users,
            asked: Vec::new(),
        };
        for address in addresses {
            if resolver.is_external(address) {
                resolver.done.insert(address.clone(), Resolution::External);
            } else {
                let open = Open {
                    address: address.clone(),
                    group: None,
                    hidden: false,
                };
                resolver.open.insert(address.folded(), open);
            }
        }
        resolver
    }

    /// The next requests, to be answered one by one, by position, with [`answer`](Self::answer); none: it is over.
    pub fn requests(&mut self) -> Vec<Request> {
        loop {
            if self.open.is_empty() {
                self.round = Round::Over;
            }
            let (questions, next) = match self.round {
                Round::Users => (self.user_questions(), Round::Groups),
                Round::Groups => (self.group_questions(), Round::Members),
                Round::Members => (self.member_questions(), Round::Names),
                Round::Names => {
                    self.close_groups();
                    (self.name_questions(), Round::Over)
                }
                Round::Over => return Vec::new(),
            };
            self.round = next;
            let mut requests = Vec::new();
            self.asked.clear();
            for question in questions {
                // An address with a control character is not asked for, and so found nowhere.
                if let Ok(request) = self.request(&question) {
                    requests.push(request);
                    self.asked.push(question);
                }
            }
            if !requests.is_empty() {
                return requests;
            }
        }
    }

    /// The answer to the request at this position of the last [`requests`](Self::requests). Returns the
    /// request for its next page, if there is one; that one's answer is for the same position.
    ///
    /// # Errors
    ///
    /// [`Failure`]: the directory refused; the addresses of that request stay unresolved. That groups may not be
    /// read is none: users are resolved without, and what is left is [`Absent::NotPermitted`].
    pub fn answer(&mut self, position: usize, answer: &Answer) -> Result<Option<Request>, Failure> {
        let Some(question) = self.asked.get(position).cloned() else {
            return Ok(None);
        };
        let (next, eventual) = match question {
            Question::Users(sought) => {
                let page = answer.users(&self.base)?;
                for user in &page.items {
                    self.user_found(user, &sought);
                }
                (page.next, false)
            }
            Question::Groups(sought) => {
                let Some(page) = permitted(answer.groups(&self.base))? else {
                    self.hide(&sought);
                    return Ok(None);
                };
                for group in &page.items {
                    self.group_found(group, &sought);
                }
                (page.next, false)
            }
            Question::Members(group) => {
                let members = self.groups.entry(group).or_default();
                let Some(page) = permitted(answer.users(&self.base))? else {
                    members.hidden = true;
                    return Ok(None);
                };
                members.users.extend(page.items);
                (page.next, true)
            }
            Question::Named(open) => {
                match answer.user() {
                    Ok(user) => self.close(&open, of_user(&self.tenant, &user)),
                    Err(failure)
                        if matches!(failure.trouble, Trouble::NoUser | Trouble::Missing) => {}
                    Err(failure) => return Err(failure),
                }
                (None, false)
            }
        };
        Ok(next.map(|link| Request::next_of_directory(&self.tenant, &link, eventual)))
    }

    /// What became of every address. What is still open belonged to someone who is gone.
    pub fn finish(mut self) -> HashMap<Address, Resolution> {
        self.close_groups();
        let open = std::mem::take(&mut self.open);
        let gone = open.into_values().map(|open| match open.hidden {
            true => (open.address, Resolution::None(Absent::NotPermitted)),
            false => (open.address, Resolution::None(Absent::DeletedUser)),
        });
        let mut all: HashMap<Address, Resolution> = gone.collect();
        all.extend(self.done);
        all
    }

    fn is_external(&self, address: &Address) -> bool {
        let domain = address.domain().to_lowercase();
        !self.domains.is_empty() && !self.domains.contains(&domain)
    }

    fn request(&self, question: &Question) -> Result<Request, ControlCharacter> {
        let asks = |sought: &[Sought]| -> Vec<Address> {
            sought.iter().map(|sought| sought.ask.clone()).collect()
        };
        match question {
            Question::Users(sought) => Request::users_by_proxy(&self.tenant, &asks(sought)),
            Question::Groups(sought) => Request::groups_by_proxy(&self.tenant, &asks(sought)),
            Question::Members(group) => Request::transitive_users(&self.tenant, group),
            Question::Named(name) => Request::user(&self.tenant, name),
        }
    }

    fn user_questions(&self) -> Vec<Question> {
        chunks(self.as_received())
            .into_iter()
            .map(Question::Users)
            .collect()
    }

    fn group_questions(&self) -> Vec<Question> {
        let untagged = self.open.iter().filter_map(|(key, open)| {
            Some(Sought {
                ask: without_tag(&open.address)?,
                open: key.clone(),
            })
        });
        let groups = chunks(self.as_received()).into_iter().map(Question::Groups);
        groups
            .chain(chunks(untagged).into_iter().map(Question::Users))
            .collect()
    }

    fn member_questions(&mut self) -> Vec<Question> {
        let groups: BTreeSet<String> = self
            .open
            .values()
            .filter_map(|open| open.group.clone())
            .collect();
        groups.into_iter().map(Question::Members).collect()
    }

    fn name_questions(&self) -> Vec<Question> {
        self.open.keys().cloned().map(Question::Named).collect()
    }

    /// The open addresses, as they were received.
    fn as_received(&self) -> impl Iterator<Item = Sought> {
        self.open.iter().map(|(key, open)| Sought {
            ask: open.address.clone(),
            open: key.clone(),
        })
    }

    /// A user has one or more of the addresses that were asked for.
    fn user_found(&mut self, user: &User, sought: &[Sought]) {
        for sought in sought {
            if user.addresses.contains(&sought.ask) {
                self.close(&sought.open, of_user(&self.tenant, user));
            }
        }
    }

    /// Whether groups have these addresses may not be asked.
    fn hide(&mut self, sought: &[Sought]) {
        for sought in sought {
            if let Some(open) = self.open.get_mut(&sought.open) {
                open.hidden = true;
            }
        }
    }

    /// A group has one or more of the addresses that were asked for.
    fn group_found(&mut self, group: &Group, sought: &[Sought]) {
        for sought in sought {
            if !group.addresses.contains(&sought.ask) {
                continue;
            }
            if let Some(open) = self.open.get_mut(&sought.open) {
                open.group = Some(group.id.clone());
                self.groups.entry(group.id.clone()).or_default().unified = group.unified;
            }
        }
    }

    /// Every member of a group is known: it is resolved.
    fn close_groups(&mut self) {
        let resolved: Vec<(String, Resolution)> = self
            .open
            .iter()
            .filter_map(|(key, open)| {
                let members = self.groups.get(open.group.as_ref()?)?;
                Some((key.clone(), members.resolution(&self.tenant)))
            })
            .collect();
        for (key, resolution) in resolved {
            self.close(&key, resolution);
        }
    }

    fn close(&mut self, key: &str, resolution: Resolution) {
        if let Some(open) = self.open.remove(key) {
            self.done.insert(open.address, resolution);
        }
    }
}

impl Members {
    fn resolution(&self, tenant: &TenantName) -> Resolution {
        if self.hidden {
            return Resolution::None(Absent::NotPermitted);
        }
        let mut beside: BTreeSet<Absent> = BTreeSet::new();
        beside.extend(self.unified.then_some(Absent::GroupMailbox));
        let mut mailboxes: Vec<Mailbox> = Vec::new();
        for user in &self.users {
            match of_user(tenant, user) {
                Resolution::Mailboxes {
                    mailboxes: of_user, ..
                } => {
                    let new = of_user.into_iter().filter(|m| !mailboxes.contains(m));
                    mailboxes.extend(new.collect::<Vec<_>>());
                }
                Resolution::None(absent) => beside.extend([absent]),
                Resolution::External => {}
            }
        }
        match (mailboxes.is_empty(), beside.first()) {
            (true, None) => Resolution::None(Absent::EmptyGroup),
            (true, Some(absent)) if beside.len() == 1 => Resolution::None(*absent),
            _ => Resolution::Mailboxes {
                mailboxes,
                beside: beside.into_iter().collect(),
            },
        }
    }
}

/// `None`: it may not be read.
fn permitted<T>(answer: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match answer {
        Err(failure) if matches!(failure.trouble, Trouble::Denied | Trouble::DirectoryDenied) => {
            Ok(None)
        }
        other => other.map(Some),
    }
}

/// The mailbox of a user. Whether there is one is known only when it is asked for: shared mailboxes have
/// neither licence nor enabled account.
fn of_user(tenant: &TenantName, user: &User) -> Resolution {
    if user.guest {
        return Resolution::None(Absent::Guest);
    }
    let name = user
        .principal_name
        .as_deref()
        .and_then(|name| name.parse().ok());
    let Some(address) = user.primary().cloned().or(name) else {
        return Resolution::None(Absent::Unknown);
    };
    let without = if user.synced == Some(true) && user.exchange_plan != Some(true) {
        Absent::OnPremises
    } else if user.exchange_plan == Some(false) {
        Absent::NoLicence
    } else if user.enabled == Some(false) {
        Absent::Disabled
    } else {
        Absent::OnPremises
    };
    let id = MailboxId {
        tenant: tenant.clone(),
        user: user.id.clone(),
    };
    Resolution::Mailboxes {
        mailboxes: vec![Mailbox {
            id,
            address,
            without,
        }],
        beside: Vec::new(),
    }
}

/// `user@x` of `user+tag@x`: the tag is the user's own, and not in the directory.
fn without_tag(address: &Address) -> Option<Address> {
    let (user, _) = address.local_part().split_once('+')?;
    format!("{user}@{}", address.domain()).parse().ok()
}

fn chunks(sought: impl Iterator<Item = Sought>) -> Vec<Vec<Sought>> {
    let sought: Vec<Sought> = sought.collect();
    sought.chunks(OR_CLAUSES).map(<[Sought]>::to_vec).collect()
}

#[cfg(test)]
mod tests;
