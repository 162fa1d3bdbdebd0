//! What we ask of Graph.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answer::ImmutableId;
use super::link::NextLink;
use super::odata::{ControlCharacter, quoted, segment};
use crate::graph::folder::{FolderId, WellKnown};
use crate::mail::{Address, TenantName};

/// The preference that makes ids survive moves within the mailbox. It stands in every mail request.
pub const IMMUTABLE_IDS: &str = "IdType=\"ImmutableId\"";

/// Clauses joined by `or` that Graph takes in one directory filter.
pub const OR_CLAUSES: usize = 15;

/// Messages asked for in one page. Few copies are expected, and their headers are large.
const PAGE_MESSAGES: usize = 50;

/// What is selected of a message: enough for the guard, never a body.
const MESSAGE_FIELDS: &str = "id,internetMessageId,subject,from,sender,receivedDateTime,\
                              parentFolderId,isRead,internetMessageHeaders";

/// What is selected of a user.
const USER_FIELDS: &str = "id,userPrincipalName,mail,proxyAddresses,accountEnabled,userType,\
                           assignedPlans,onPremisesSyncEnabled";

/// A mailbox: a user of one tenant, by object id. Ids of two tenants can never be confused, because the
/// tenant is part of the type and the client of one tenant refuses requests of another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MailboxId {
    /// Whose tenant.
    pub tenant: TenantName,
    /// Object id of the user.
    pub user: String,
}

impl fmt::Display for MailboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.user)
    }
}

/// HTTP method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Reads.
    Get,
    /// Acts, or sends a batch.
    Post,
}

impl Method {
    /// As it stands in a request line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

/// Where to look for copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Every normal folder, Deleted Items and Junk Email included, Recoverable Items not.
    AllFolders,
    /// One folder.
    Folder(WellKnown),
}

/// A request, ready to be sent or put into a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    tenant: TenantName,
    mailbox: Option<MailboxId>,
    method: Method,
    target: String,
    body: Option<Value>,
    eventual: bool,
}

impl Request {
    /// The copies in a mailbox that carry this Message-ID, which is sent as it stands: brackets are the
    /// caller's to give, since stored ids have them or not.
    ///
    /// # Errors
    ///
    /// [`ControlCharacter`]: the Message-ID has one, and cannot be asked for.
    pub fn locate(
        mailbox: &MailboxId,
        scope: Scope,
        internet_message_id: &str,
    ) -> Result<Self, ControlCharacter> {
        let user = segment(&mailbox.user)?;
        let folder = match scope {
            Scope::AllFolders => String::new(),
            Scope::Folder(folder) => format!("/mailFolders/{folder}"),
        };
        // `eq` is `%20eq%20` around the literal; the rest of the filter needs no encoding.
        let filter = format!("internetMessageId%20eq%20{}", quoted(internet_message_id)?);
        Ok(Self::of_mailbox(
            mailbox,
            format!(
                "/users/{user}{folder}/messages?$filter={filter}&$select={MESSAGE_FIELDS}&$top={PAGE_MESSAGES}"
            ),
        ))
    }

    /// The next page of a collection in a mailbox.
    pub fn next(mailbox: &MailboxId, link: &NextLink) -> Self {
        Self::of_mailbox(mailbox, link.as_str().to_owned())
    }

    /// One message, wherever it is.
    ///
    /// # Errors
    ///
    /// [`ControlCharacter`]: the id has one.
    pub fn message(mailbox: &MailboxId, message: &ImmutableId) -> Result<Self, ControlCharacter> {
        let (user, message) = (segment(&mailbox.user)?, segment(&message.0)?);
        let target = format!("/users/{user}/messages/{message}?$select={MESSAGE_FIELDS}");
        Ok(Self::of_mailbox(mailbox, target))
    }

    /// Moves a message to a well-known folder.
    ///
    /// # Errors
    ///
    /// [`ControlCharacter`]: the id has one.
    pub fn move_message(
        mailbox: &MailboxId,
        message: &ImmutableId,
        to: WellKnown,
    ) -> Result<Self, ControlCharacter> {
        let (user, message) = (segment(&mailbox.user)?, segment(&message.0)?);
        let mut request =
            Self::of_mailbox(mailbox, format!("/users/{user}/messages/{message}/move"));
        request.method = Method::Post;
        request.body = Some(json!({ "destinationId": to.name() }));
        Ok(request)
    }

    /// A well-known folder: its id and name in this mailbox.
    ///
    /// # Errors
    ///
    /// [`ControlCharacter`]: the user id has one.
    pub fn well_known(mailbox: &MailboxId, folder: WellKnown) -> Result<Self, ControlCharacter> {
        Self::folder_by_name(mailbox, folder.name())
    }

    /// A folder by its id.
    ///
    /// # Errors
    ///
    /// [`ControlCharacter`]: an id has one.
    pub fn folder(mailbox: &MailboxId, folder: &FolderId) -> Result<Self, ControlCharacter> {
        Self::folder_by_name(mailbox, &folder.0)
    }

    /// Users that have one of these addresses; at most [`OR_CLAUSES`] are looked up, more are ignored.
    ///
    /// # Errors
    ///
    /// [`ControlCharacter`]: an address has one.
    pub fn users_by_proxy(
        tenant: &TenantName,
        addresses: &[Address],
    ) -> Result<Self, ControlCharacter> {
        let filter = proxy_filter(addresses)?;
        let target = format!("/users?$filter={filter}&$select={USER_FIELDS}&$top=999");
        Ok(Self::of_directory(tenant, target))
    }

    /// Groups that have one of these addresses; at most [`OR_CLAUSES`] are looked up, more are ignored.
    ///
    /// # Errors
    ///
    /// [`ControlCharacter`]: an address has one.
    pub fn groups_by_proxy(
        tenant: &TenantName,
        addresses: &[Address],
    ) -> Result<Self, ControlCharacter> {
        let filter = proxy_filter(addresses)?;
        let fields = "id,mail,proxyAddresses,groupTypes";
        let target = format!("/groups?$filter={filter}&$select={fields}&$top=999");
        Ok(Self::of_directory(tenant, target))
    }

    /// A user by sign-in name or object id.
    ///
    /// # Errors
    ///
    /// [`ControlCharacter`]: the name has one.
    pub fn user(tenant: &TenantName, name: &str) -> Result<Self, ControlCharacter> {
        let target = format!("/users/{}?$select={USER_FIELDS}", segment(name)?);
        Ok(Self::of_directory(tenant, target))
    }

    /// The users in a group, those of groups within it included.
    ///
    /// # Errors
    ///
    /// [`ControlCharacter`]: the id has one.
    pub fn transitive_users(tenant: &TenantName, group: &str) -> Result<Self, ControlCharacter> {
        let target = format!(
            "/groups/{}/transitiveMembers/microsoft.graph.user?$count=true&$select={USER_FIELDS}&$top=999",
            segment(group)?
        );
        let mut request = Self::of_directory(tenant, target);
        // A cast together with other options is an advanced query.
        request.eventual = true;
        Ok(request)
    }

    /// The next page of a directory collection; `eventual` as its first page had it.
    pub fn next_of_directory(tenant: &TenantName, link: &NextLink, eventual: bool) -> Self {
        let mut request = Self::of_directory(tenant, link.as_str().to_owned());
        request.eventual = eventual;
        request
    }

    fn folder_by_name(mailbox: &MailboxId, name: &str) -> Result<Self, ControlCharacter> {
        let (user, folder) = (segment(&mailbox.user)?, segment(name)?);
        let target = format!("/users/{user}/mailFolders/{folder}?$select=id,displayName");
        Ok(Self::of_mailbox(mailbox, target))
    }

    fn of_mailbox(mailbox: &MailboxId, target: String) -> Self {
        Self {
            tenant: mailbox.tenant.clone(),
            mailbox: Some(mailbox.clone()),
            method: Method::Get,
            target,
            body: None,
            eventual: false,
        }
    }

    fn of_directory(tenant: &TenantName, target: String) -> Self {
        Self {
            tenant: tenant.clone(),
            mailbox: None,
            method: Method::Get,
            target,
            body: None,
            eventual: false,
        }
    }

    /// The tenant that it is for.
    pub fn tenant(&self) -> &TenantName {
        &self.tenant
    }

    /// The mailbox that it is about; `None` for the directory.
    pub fn mailbox(&self) -> Option<&MailboxId> {
        self.mailbox.as_ref()
    }

    /// HTTP method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// What follows the base URL, encoded, beginning with a slash.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// JSON body.
    pub fn body(&self) -> Option<&Value> {
        self.body.as_ref()
    }

    /// The headers that this request needs besides authorization and content type.
    pub fn headers(&self) -> Vec<(&'static str, &'static str)> {
        let mut headers = Vec::new();
        if self.mailbox.is_some() {
            headers.push(("Prefer", IMMUTABLE_IDS));
        }
        if self.eventual {
            headers.push(("ConsistencyLevel", "eventual"));
        }
        headers
    }
}

/// `proxyAddresses/any(p:p eq 'smtp:…')`, joined by `or`. `in` is not available there.
fn proxy_filter(addresses: &[Address]) -> Result<String, ControlCharacter> {
    let clauses = addresses.iter().take(OR_CLAUSES).map(|address| {
        let literal = quoted(&format!("smtp:{address}"))?;
        Ok(format!("proxyAddresses/any(p:p%20eq%20{literal})"))
    });
    Ok(clauses.collect::<Result<Vec<_>, _>>()?.join("%20or%20"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailbox() -> MailboxId {
        MailboxId {
            tenant: TenantName::new("t"),
            user: "u#1".into(),
        }
    }

    #[test]
    fn targets() {
        let (mailbox, tenant) = (mailbox(), TenantName::new("t"));
        let message = ImmutableId("A/b+c=".into());
        let deletions = WellKnown::RecoverableItemsDeletions;
        let folder = Scope::Folder(deletions);
        for (name, request, expected) in [
            (
                "all folders",
                Request::locate(&mailbox, Scope::AllFolders, "<a+'b@x>"),
                "/users/u%231/messages?$filter=internetMessageId%20eq%20%27%3Ca%2B%27%27b%40x%3E%27&",
            ),
            (
                "one folder",
                Request::locate(&mailbox, folder, "a"),
                "/users/u%231/mailFolders/recoverableitemsdeletions/messages?$filter=",
            ),
            (
                "message",
                Request::message(&mailbox, &message),
                "/users/u%231/messages/A%2Fb%2Bc%3D?$select=id,",
            ),
            (
                "move",
                Request::move_message(&mailbox, &message, deletions),
                "/users/u%231/messages/A%2Fb%2Bc%3D/move",
            ),
            (
                "user",
                Request::user(&tenant, "g_x#EXT#@t"),
                "/users/g_x%23EXT%23%40t?$select=id,",
            ),
        ] {
            let request = request.unwrap();
            assert!(
                request.target().starts_with(expected),
                "{name}: {}",
                request.target()
            );
            let prefers = request.headers().contains(&("Prefer", IMMUTABLE_IDS));
            assert_eq!(prefers, request.mailbox().is_some(), "{name}");
        }
    }

    #[test]
    fn a_move_names_its_destination() {
        let request = Request::move_message(
            &mailbox(),
            &ImmutableId("m".into()),
            WellKnown::RecoverableItemsDeletions,
        )
        .unwrap();
        assert_eq!(request.method(), Method::Post);
        let body = json!({"destinationId": "recoverableitemsdeletions"});
        assert_eq!(request.body(), Some(&body));
    }

    #[test]
    fn addresses_are_looked_up_fifteen_at_a_time() {
        let addresses: Vec<Address> = (0..20)
            .map(|n| format!("a{n}@x").parse().unwrap())
            .collect();
        let request = Request::users_by_proxy(&TenantName::new("t"), &addresses).unwrap();
        assert_eq!(
            request.target().matches("proxyAddresses/any").count(),
            OR_CLAUSES
        );
        assert!(request.target().contains("%27smtp%3Aa0%40x%27"));
        assert!(request.headers().is_empty());
    }

    #[test]
    fn control_characters_reach_no_request() {
        assert!(Request::locate(&mailbox(), Scope::AllFolders, "<a\r\nb>").is_err());
    }
}
