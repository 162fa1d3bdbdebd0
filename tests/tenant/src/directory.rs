//! Who an address belongs to.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use crate::random;
use crate::settings::{Contact, Group, GroupKind, Settings, User, UserKind};

/// Users, groups and contacts with their ids, found by address or id.
#[derive(Debug)]
pub(crate) struct Directory {
    /// Users; the position is the number of the mailbox.
    pub(crate) users: Vec<Entry<User>>,
    /// Groups.
    pub(crate) groups: Vec<Entry<Group>>,
    /// Contacts.
    pub(crate) contacts: Vec<Entry<Contact>>,
    /// Accepted domains, lower case; the first is the default.
    pub(crate) domains: Vec<String>,
    by_address: HashMap<String, Owner>,
    by_principal: HashMap<String, u32>,
    by_id: HashMap<Uuid, Owner>,
}

/// Something of the directory with its object id.
#[derive(Debug)]
pub(crate) struct Entry<T> {
    /// The object id.
    pub(crate) id: Uuid,
    /// What it is.
    pub(crate) is: T,
}

/// What an address or an id belongs to; the numbers are positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// A user.
    User(u32),
    /// A group.
    Group(u32),
    /// A contact.
    Contact(u32),
}

/// A member found by expanding a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// The address as the group lists it.
    pub(crate) address: String,
    /// Whose it is; `None`: an outsider.
    pub(crate) owner: Option<Owner>,
}

impl Directory {
    /// The directory of a tenant.
    pub(crate) fn new(settings: &Settings) -> Self {
        let mut directory = Self {
            users: Vec::with_capacity(settings.users.len()),
            groups: Vec::new(),
            contacts: Vec::new(),
            domains: settings
                .domains
                .iter()
                .map(|domain| domain.to_lowercase())
                .collect(),
            by_address: HashMap::new(),
            by_principal: HashMap::new(),
            by_id: HashMap::new(),
        };
        for user in &settings.users {
            directory.add_user(user.clone(), settings.seed);
        }
        for group in &settings.groups {
            directory.add_group(group.clone(), settings.seed);
        }
        for contact in &settings.contacts {
            directory.add_contact(contact.clone(), settings.seed);
        }
        directory
    }

    /// Adds a user and gives its number.
    pub(crate) fn add_user(&mut self, mut user: User, seed: u64) -> u32 {
        if user.kind == UserKind::Guest && user.principal.is_none() {
            let domain = initial_domain(&self.domains);
            user.principal = Some(format!("{}#EXT#@{domain}", user.address.replace('@', "_")));
        }
        let number = position(self.users.len());
        let id = random::guid(seed, "user", u64::from(number));
        let owner = Owner::User(number);
        self.by_address.insert(user.address.to_lowercase(), owner);
        for alias in &user.aliases {
            self.by_address.insert(alias.to_lowercase(), owner);
        }
        if user.kind != UserKind::Deleted {
            self.by_id.insert(id, owner);
            if let Some(principal) = &user.principal {
                self.by_principal.insert(principal.to_lowercase(), number);
            }
        }
        self.users.push(Entry { id, is: user });
        number
    }

    /// Adds a group.
    pub(crate) fn add_group(&mut self, group: Group, seed: u64) {
        let number = position(self.groups.len());
        let id = random::guid(seed, "group", u64::from(number));
        self.by_address
            .insert(group.address.to_lowercase(), Owner::Group(number));
        if group.kind != GroupKind::Dynamic {
            self.by_id.insert(id, Owner::Group(number));
        }
        self.groups.push(Entry { id, is: group });
    }

    fn add_contact(&mut self, contact: Contact, seed: u64) {
        let number = position(self.contacts.len());
        let id = random::guid(seed, "contact", u64::from(number));
        self.by_address
            .insert(contact.address.to_lowercase(), Owner::Contact(number));
        self.by_id.insert(id, Owner::Contact(number));
        self.contacts.push(Entry { id, is: contact });
    }

    /// Whose address it is; a tag after "+" is tried without.
    pub(crate) fn owner(&self, address: &str) -> Option<Owner> {
        let address = address.to_lowercase();
        self.by_address.get(&address).copied().or_else(|| {
            let (local, domain) = address.split_once('@')?;
            let (base, _) = local.split_once('+')?;
            self.by_address.get(&format!("{base}@{domain}")).copied()
        })
    }

    /// The user whose object id or principal name this is: aliases do not count, as in Graph.
    pub(crate) fn user(&self, key: &str) -> Option<u32> {
        if let Ok(id) = key.parse::<Uuid>() {
            return match self.by_id.get(&id)? {
                Owner::User(number) => Some(*number),
                _ => None,
            };
        }
        let key = key.to_lowercase();
        let by_address = || match self.by_address.get(&key) {
            Some(Owner::User(number)) => Some(*number),
            _ => None,
        };
        // An address is the principal name of a user who has no other, and of nobody as an alias.
        let is_principal = |number: &u32| {
            self.user_at(*number).is_some_and(|user| {
                user.is.kind != UserKind::Deleted && principal(&user.is).to_lowercase() == key
            })
        };
        self.by_principal
            .get(&key)
            .copied()
            .or_else(by_address)
            .filter(is_principal)
    }

    /// The group with this object id.
    pub(crate) fn group(&self, key: &str) -> Option<u32> {
        match self.by_id.get(&key.parse().ok()?)? {
            Owner::Group(number) => Some(*number),
            _ => None,
        }
    }

    /// The user with this number.
    pub(crate) fn user_at(&self, number: u32) -> Option<&Entry<User>> {
        self.users.get(number as usize)
    }

    /// The group with this number.
    pub(crate) fn group_at(&self, number: u32) -> Option<&Entry<Group>> {
        self.groups.get(number as usize)
    }

    /// Whether the address is of an accepted domain.
    pub(crate) fn is_internal(&self, address: &str) -> bool {
        let domain = address
            .rsplit('@')
            .next()
            .unwrap_or_default()
            .to_lowercase();
        self.domains.contains(&domain)
    }

    /// Everyone in a group, nested groups expanded, each once; cycles end.
    pub(crate) fn expand(&self, group: u32) -> Vec<Member> {
        let (mut seen_groups, mut seen, mut members) =
            (HashSet::from([group]), HashSet::new(), Vec::new());
        let mut waiting = vec![group];
        while let Some(number) = waiting.pop() {
            for address in self
                .group_at(number)
                .iter()
                .flat_map(|group| &group.is.members)
            {
                match self.owner(address) {
                    Some(Owner::Group(nested)) if seen_groups.insert(nested) => {
                        waiting.push(nested)
                    }
                    Some(Owner::Group(_)) => {}
                    owner if seen.insert(address.to_lowercase()) => members.push(Member {
                        address: address.clone(),
                        owner,
                    }),
                    _ => {}
                }
            }
        }
        members
    }

    /// Everything in a group as Graph lists it: users, contacts and groups; `transitive` follows groups.
    pub(crate) fn members(&self, group: u32, transitive: bool) -> Vec<Owner> {
        let (mut seen, mut members, mut waiting) = (HashSet::new(), Vec::new(), vec![group]);
        while let Some(number) = waiting.pop() {
            for address in self
                .group_at(number)
                .iter()
                .flat_map(|group| &group.is.members)
            {
                let Some(owner) = self.owner(address).filter(|owner| self.is_listed(*owner)) else {
                    continue;
                };
                if seen.insert(owner) {
                    members.push(owner);
                    if let (Owner::Group(nested), true) = (owner, transitive) {
                        waiting.push(nested);
                    }
                }
            }
        }
        members
    }

    /// Whether Graph lists it: deleted users and dynamic groups it does not.
    pub(crate) fn is_listed(&self, owner: Owner) -> bool {
        match owner {
            Owner::User(number) => self
                .user_at(number)
                .is_some_and(|user| user.is.kind != UserKind::Deleted),
            Owner::Group(number) => self
                .group_at(number)
                .is_some_and(|group| group.is.kind != GroupKind::Dynamic),
            Owner::Contact(_) => true,
        }
    }
}

/// The user principal name.
pub(crate) fn principal(user: &User) -> &str {
    user.principal.as_deref().unwrap_or(&user.address)
}

/// The domain that a tenant was born with.
pub(crate) fn initial_domain(domains: &[String]) -> String {
    let found = domains
        .iter()
        .find(|domain| domain.contains(".onmicrosoft."))
        .or_else(|| domains.first());
    found.cloned().unwrap_or_default()
}

fn position(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> Directory {
        let mut settings = Settings::with_users([
            "ana@contoso.example",
            "bo@contoso.example",
            "chi@contoso.example",
        ]);
        settings.users[0] = settings.users[0].clone().alias("a.smith@contoso.example");
        settings.groups = vec![
            Group::new(
                "all@contoso.example",
                [
                    "team@contoso.example",
                    "ana@contoso.example",
                    "out@other.example",
                ],
            ),
            Group::new(
                "team@contoso.example",
                [
                    "bo@contoso.example",
                    "all@contoso.example",
                    "A.Smith@contoso.example",
                ],
            ),
        ];
        Directory::new(&settings)
    }

    #[test]
    fn addresses_have_owners() {
        let directory = directory();
        for (address, expected) in [
            ("ANA@contoso.example", Some(Owner::User(0))),
            ("a.smith@Contoso.example", Some(Owner::User(0))),
            ("ana+news@contoso.example", Some(Owner::User(0))),
            ("team@contoso.example", Some(Owner::Group(1))),
            ("nobody@contoso.example", None),
        ] {
            assert_eq!(directory.owner(address), expected, "{address}");
        }
        assert_eq!(
            directory.user("a.smith@contoso.example"),
            None,
            "an alias is no key"
        );
        assert_eq!(directory.user(&directory.users[1].id.to_string()), Some(1));
    }

    #[test]
    fn groups_with_a_cycle_expand() {
        let directory = directory();
        let mut members: Vec<String> = directory
            .expand(0)
            .into_iter()
            .map(|member| member.address)
            .collect();
        members.sort();
        assert_eq!(
            members,
            [
                "A.Smith@contoso.example",
                "ana@contoso.example",
                "bo@contoso.example",
                "out@other.example"
            ]
        );
        assert!(
            directory.members(0, true).contains(&Owner::Group(0)),
            "a cycle lists the group itself"
        );
        assert_eq!(
            directory.members(0, false),
            [Owner::Group(1), Owner::User(0)]
        );
    }
}
