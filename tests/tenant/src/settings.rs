//! What a simulated tenant is made of, and how its services behave.

use std::time::Duration;

/// A tenant: people, groups, the registered application.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Decides every id, every fault and every order that is left open.
    pub seed: u64,
    /// The display name of the organisation.
    pub name: String,
    /// A GUID; `None` makes one from the seed.
    pub tenant_id: Option<String>,
    /// Accepted domains; the first is the default. `*.onmicrosoft.com` (or the first) is the initial one.
    pub domains: Vec<String>,
    /// Who has a mailbox, or looks as if.
    pub users: Vec<User>,
    /// Distribution lists and other groups.
    pub groups: Vec<Group>,
    /// Mail contacts: outside addresses in the directory.
    pub contacts: Vec<Contact>,
    /// Application permissions (names as in the `roles` claim) that were consented.
    pub permissions: Vec<String>,
    /// How the services behave; can be changed while they run.
    pub conduct: Conduct,
    /// How journaling writes its reports.
    pub journaling: Journaling,
}

impl Default for Settings {
    /// A tenant without users, for `contoso.example` and `contoso.onmicrosoft.example`.
    fn default() -> Self {
        Self {
            seed: 1,
            name: "Contoso".into(),
            tenant_id: None,
            domains: vec![
                "contoso.example".into(),
                "contoso.onmicrosoft.example".into(),
            ],
            users: Vec::new(),
            groups: Vec::new(),
            contacts: Vec::new(),
            permissions: [
                "Mail.ReadWrite",
                "User.Read.All",
                "GroupMember.Read.All",
                "Organization.Read.All",
                "Domain.Read.All",
            ]
            .map(String::from)
            .to_vec(),
            conduct: Conduct::default(),
            journaling: Journaling::default(),
        }
    }
}

impl Settings {
    /// The default tenant with these users.
    pub fn with_users<S: AsRef<str>>(addresses: impl IntoIterator<Item = S>) -> Self {
        let users = addresses
            .into_iter()
            .map(|address| User::new(address.as_ref()))
            .collect();
        Self {
            users,
            ..Self::default()
        }
    }
}

/// A user of the directory.
#[derive(Debug, Clone)]
pub struct User {
    /// Primary address, and the user principal name unless [`principal`](Self::principal) says otherwise.
    pub address: String,
    /// Display name.
    pub name: String,
    /// The user principal name, if it is not the address.
    pub principal: Option<String>,
    /// Further addresses.
    pub aliases: Vec<String>,
    /// What kind of mailbox it is.
    pub kind: UserKind,
    /// Where its mail is forwarded to.
    pub forward: Option<Forward>,
    /// Inbox rules.
    pub rules: Vec<Rule>,
    /// Folders of its own, below the top level.
    pub folders: Vec<String>,
    /// Litigation hold: a hard delete is refused with 403.
    pub hold: bool,
}

impl User {
    /// A plain user; the name is made from the local part.
    pub fn new(address: &str) -> Self {
        let local = address.split('@').next().unwrap_or_default();
        let words = local
            .split(['.', '-', '_'])
            .filter(|word| !word.is_empty())
            .map(|word| {
                let mut letters = word.chars();
                letters
                    .next()
                    .map(|first| first.to_uppercase().chain(letters).collect::<String>())
                    .unwrap_or_default()
            });
        Self {
            address: address.into(),
            name: words.collect::<Vec<_>>().join(" "),
            principal: None,
            aliases: Vec::new(),
            kind: UserKind::User,
            forward: None,
            rules: Vec::new(),
            folders: Vec::new(),
            hold: false,
        }
    }

    /// With one more address.
    #[must_use]
    pub fn alias(mut self, address: &str) -> Self {
        self.aliases.push(address.into());
        self
    }

    /// With another kind of mailbox.
    #[must_use]
    pub fn kind(mut self, kind: UserKind) -> Self {
        self.kind = kind;
        self
    }

    /// With its mail forwarded; `keep` is "deliver and forward".
    #[must_use]
    pub fn forwarding(mut self, to: &str, keep: bool) -> Self {
        self.forward = Some(Forward {
            to: to.into(),
            keep,
        });
        self
    }

    /// With an inbox rule: mail whose subject contains `subject` goes to `folder`.
    #[must_use]
    pub fn rule(mut self, subject: &str, folder: &str) -> Self {
        self.rules.push(Rule {
            subject: subject.into(),
            folder: folder.into(),
        });
        self
    }
}

/// What a user of the directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserKind {
    /// A person with a mailbox.
    User,
    /// A shared mailbox.
    Shared,
    /// A room.
    Room,
    /// A person who may not sign in; the mailbox is there.
    Disabled,
    /// A guest: in the directory, its mail goes outside.
    Guest,
    /// The mailbox is on an Exchange Server of the organisation: 404 `MailboxNotEnabledForRESTAPI`.
    OnPremises,
    /// No licence: 404 `MailboxNotEnabledForRESTAPI`, mail to it bounces.
    Unlicensed,
    /// Deleted: the directory does not know it any more. It still gets journaled mail.
    Deleted,
}

impl UserKind {
    /// Whether mail arrives in a mailbox that Graph serves.
    pub(crate) const fn has_mailbox(self) -> bool {
        matches!(
            self,
            Self::User | Self::Shared | Self::Room | Self::Disabled
        )
    }
}

/// Forwarding of a mailbox.
#[derive(Debug, Clone)]
pub struct Forward {
    /// The target, inside or outside.
    pub to: String,
    /// Whether the mailbox keeps a copy.
    pub keep: bool,
}

/// An inbox rule: mail whose subject contains a text (in any case) is delivered to a folder.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The text; empty matches every subject.
    pub subject: String,
    /// A well-known folder name or the display name of an own folder (made if it is missing).
    pub folder: String,
}

/// A group with an address.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its address.
    pub address: String,
    /// Its display name.
    pub name: String,
    /// Addresses of users, other groups, contacts or outsiders.
    pub members: Vec<String>,
    /// What kind it is.
    pub kind: GroupKind,
}

impl Group {
    /// A distribution list.
    pub fn new<S: AsRef<str>>(address: &str, members: impl IntoIterator<Item = S>) -> Self {
        Self {
            address: address.into(),
            name: address.split('@').next().unwrap_or_default().into(),
            members: members
                .into_iter()
                .map(|member| member.as_ref().to_owned())
                .collect(),
            kind: GroupKind::Distribution,
        }
    }
}

/// What a group is to Graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupKind {
    /// A distribution list.
    Distribution,
    /// A mail-enabled security group.
    Security,
    /// A Microsoft 365 group.
    Microsoft365,
    /// A dynamic distribution group: Exchange expands it, Graph does not know it.
    Dynamic,
}

/// A mail contact.
#[derive(Debug, Clone)]
pub struct Contact {
    /// The outside address.
    pub address: String,
    /// Display name.
    pub name: String,
}

/// How the services behave. [`Tenant::change`](crate::Tenant::change) changes it at run time.
#[derive(Debug, Clone)]
pub struct Conduct {
    /// How long a request takes, beside what the machine needs.
    pub service_time: Duration,
    /// How the token endpoint behaves.
    pub sign_in: SignIn,
    /// Life of an access token.
    pub token_life: Duration,
    /// What is throttled.
    pub throttle: Throttle,
    /// Faults, the first that applies wins.
    pub faults: Vec<Fault>,
    /// The form of next-links.
    pub links: Links,
    /// What Microsoft does not document.
    pub guesses: Guesses,
    /// Whether requests are kept for [`Tenant::requests`](crate::Tenant::requests).
    pub log: bool,
    /// Users, by their position in [`Settings::users`], to whose mailboxes a role of Exchange lets the
    /// application (RBAC for Applications), which no token shows.
    pub exchange_role: Vec<u32>,
}

impl Default for Conduct {
    /// Fast, without faults or throttling.
    fn default() -> Self {
        Self {
            service_time: Duration::ZERO,
            sign_in: SignIn::Normal,
            token_life: Duration::from_secs(3599),
            throttle: Throttle::default(),
            faults: Vec::new(),
            links: Links::default(),
            guesses: Guesses::default(),
            log: true,
            exchange_role: Vec::new(),
        }
    }
}

/// How the token endpoint answers the right credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignIn {
    /// With a token.
    Normal,
    /// The secret has expired (AADSTS7000222).
    SecretExpired,
    /// The same, and the answer holds the secret that was sent: an endpoint or a proxy that echoes.
    SecretEchoed,
    /// The application is not in the tenant (AADSTS700016).
    NoApplication,
    /// The endpoint has trouble: 503.
    Unavailable,
}

/// Limits. Beyond one, a request is answered 429 with `Retry-After`.
#[derive(Debug, Clone)]
pub struct Throttle {
    /// How many Outlook requests may run at once, and counted over what.
    pub concurrency: Concurrency,
    /// Requests within ten minutes for each application and mailbox (Graph: 10,000); `None`: no limit.
    pub per_ten_minutes: Option<u32>,
    /// What `Retry-After` says, in whole seconds.
    pub retry_after: u32,
}

impl Default for Throttle {
    /// No limit; `Retry-After: 1`, should one be set.
    fn default() -> Self {
        Self {
            concurrency: Concurrency::Unlimited,
            per_ten_minutes: None,
            retry_after: 1,
        }
    }
}

/// The two readings of Microsoft's limit of four, and none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Concurrency {
    /// No limit.
    #[default]
    Unlimited,
    /// So many for an application over all mailboxes.
    App(u32),
    /// So many for an application and mailbox.
    Mailbox(u32),
}

/// A fault that some requests meet. Whether a request meets it follows from the seed, the request and
/// how often the same request was made: not from what runs beside it.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Which requests can meet it.
    pub on: Matching,
    /// How many of them do, 0 to 1.
    pub share: f64,
    /// At most so many in all; `None`: no bound.
    pub limit: Option<u32>,
    /// What happens.
    pub kind: FaultKind,
}

impl Fault {
    /// A fault that a share of all Outlook requests meets.
    pub fn new(kind: FaultKind, share: f64) -> Self {
        Self {
            on: Matching::default(),
            share,
            limit: None,
            kind,
        }
    }

    /// Only for requests whose path contains `path`.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        self.on.path = path.into();
        self
    }

    /// Only so many times.
    #[must_use]
    pub const fn times(mut self, limit: u32) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Only for this method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.on.method = Some(method.into());
        self
    }

    /// Also (`Scope::Any`) or only for `$batch` itself, or for token requests.
    #[must_use]
    pub const fn scope(mut self, scope: Scope) -> Self {
        self.on.scope = scope;
        self
    }
}

/// Which requests a [`Fault`] can meet.
#[derive(Debug, Clone, Default)]
pub struct Matching {
    /// A method; `None`: any.
    pub method: Option<String>,
    /// The decoded path contains this text (in any case).
    pub path: String,
    /// What sort of request.
    pub scope: Scope,
}

/// Sorts of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// Requests for mailboxes, alone or within a batch.
    #[default]
    Outlook,
    /// Requests for users, groups and the organisation.
    Directory,
    /// `$batch` itself.
    Batch,
    /// The token endpoint.
    Token,
    /// All of them.
    Any,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// Answered with this status (429, 500, 502, 503, 504) without taking effect; 429 and 503 with `Retry-After` if given.
    Status(u16, Option<u32>),
    /// It takes effect and is answered with this status.
    StatusAfter(u16),
    /// 401 although the token is good.
    Unauthorized,
    /// The exchange is cut (HTTP/2: the stream reset) without taking effect. Within a batch: 504.
    Dropped,
    /// It takes effect and the exchange is cut. Within a batch: 504.
    DroppedAfter,
    /// The whole connection is closed without taking effect, and with it whatever else runs on it.
    Disconnected,
    /// It takes effect after this much longer.
    Slow(Duration),
}

/// The forms of `@odata.nextLink`.
#[derive(Debug, Clone, Default)]
pub struct Links {
    /// `users('id')/mailfolders('id')/messages` instead of slashes.
    pub keys: bool,
    /// Before each next page one that is empty and has a next-link.
    pub empty_pages: bool,
    /// Ids in the alphabet with "+" and "/".
    pub slash_ids: bool,
    /// Pages of at most so many, whatever `$top` asks; 0: as asked.
    pub page: usize,
    /// The base of next-links, if a proxy stands before the service.
    pub base: Option<String>,
}

/// What nobody outside Microsoft knows for sure; the default is what was seen or is likeliest.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a question of its own"
)]
pub struct Guesses {
    /// A batch item without `Prefer` takes that of the batch.
    pub batch_inherits_prefer: bool,
    /// A move to the folder where the message is: true 201, false 400 `ErrorMoveCopyFailed`.
    pub move_again_succeeds: bool,
    /// `internetMessageId eq` regards case.
    pub message_id_exact: bool,
    /// `recoverableitemspurges` and its like are known names.
    pub recoverable_names: bool,
    /// `permanentDelete` works on messages in Recoverable Items.
    pub purge_from_recoverable: bool,
    /// `/messages/{id}` finds messages in Recoverable Items.
    pub recoverable_by_id: bool,
    /// `internetMessageHeaders` are missing for Sent Items copies.
    pub sent_without_headers: bool,
}

impl Default for Guesses {
    fn default() -> Self {
        Self {
            batch_inherits_prefer: false,
            move_again_succeeds: true,
            message_id_exact: false,
            recoverable_names: true,
            purge_from_recoverable: true,
            recoverable_by_id: true,
            sent_without_headers: true,
        }
    }
}

/// How journal reports are written.
#[derive(Debug, Clone)]
pub struct Journaling {
    /// Whether messages are journaled at all.
    pub enabled: bool,
    /// The address that undeliverable reports go to, which is the reverse-path of reports; `None`: `<>`.
    pub undeliverable: Option<String>,
    /// Octets of header that Exchange adds to the journaled message; real ones have 19,000 to 69,000.
    pub header_octets: std::ops::Range<usize>,
    /// `X-MS-Exchange-CrossTenant-*` stamps besides `X-OriginatorOrg` and `X-LD-Processed`.
    pub cross_tenant: bool,
}

impl Default for Journaling {
    fn default() -> Self {
        Self {
            enabled: true,
            undeliverable: None,
            header_octets: 600..1200,
            cross_tenant: true,
        }
    }
}
