//! The handles that tests and the demo hold.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::ca::Authority;
use crate::directory::Owner;
use crate::ids::{Id, Kind};
use crate::mail::{Delivered, Mail};
use crate::mailbox::{Copy, Mailbox};
use crate::random::Random;
use crate::service::Service;
use crate::settings::{Conduct, Group, Settings, User};
use crate::traffic::{Counts, Request};
use crate::world::{World, locked};
use crate::{TenantError, clock, http};

/// A simulated cloud: one host for sign-in and Graph of any number of tenants.
#[derive(Debug, Clone)]
pub struct Cloud(Arc<Running>);

/// Ends the service with its last handle.
#[derive(Debug)]
struct Running {
    service: Arc<Service>,
    authority: Option<Authority>,
    shutdown: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// How a [`Cloud`] listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// HTTPS with a certificate of its own authority.
    Https,
    /// Plain HTTP, for a validating proxy.
    Http,
}

impl Cloud {
    /// Starts on a free port of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// If no port can be had or no certificate be made.
    pub async fn start(transport: Transport) -> Result<Self, TenantError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let (authority, tls, scheme) = match transport {
            Transport::Http => (None, None, "http"),
            Transport::Https => {
                let authority = Authority::new()?;
                let tls = authority.leaf(&["localhost", "127.0.0.1"])?.server()?;
                (
                    Some(authority),
                    Some(TlsAcceptor::from(Arc::new(tls))),
                    "https",
                )
            }
        };
        let service = Arc::new(Service {
            worlds: RwLock::default(),
            base: format!("{scheme}://127.0.0.1:{port}"),
            random: Mutex::new(Random::new(u64::from(port))),
            unauthorized: Mutex::default(),
        });
        let shutdown = CancellationToken::new();
        tokio::spawn(http::serve(
            listener,
            tls,
            Arc::clone(&service),
            shutdown.clone(),
        ));
        Ok(Self(Arc::new(Running {
            service,
            authority,
            shutdown,
        })))
    }

    /// Adds a tenant.
    pub fn add(&self, settings: Settings) -> Tenant {
        let world = Arc::new(World::new(settings));
        self.0
            .service
            .worlds
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::clone(&world));
        Tenant {
            world,
            cloud: self.clone(),
        }
    }

    /// The authority's certificate in PEM; empty over plain HTTP.
    pub fn ca_pem(&self) -> &str {
        self.0
            .authority
            .as_ref()
            .map(Authority::pem)
            .unwrap_or_default()
    }

    /// The authority, to make certificates for the receiver as well; `None` over plain HTTP.
    pub fn authority(&self) -> Option<&Authority> {
        self.0.authority.as_ref()
    }

    /// Requests whose token nobody issued or that had ended.
    pub fn unauthorized(&self) -> u64 {
        *locked(&self.0.service.unauthorized)
    }
}

/// A simulated tenant. Clones are handles of the same one; the service ends with the last.
#[derive(Debug, Clone)]
pub struct Tenant {
    pub(crate) world: Arc<World>,
    cloud: Cloud,
}

impl Tenant {
    /// A tenant with a cloud of its own, over HTTPS.
    ///
    /// # Errors
    ///
    /// As [`Cloud::start`].
    pub async fn start(settings: Settings) -> Result<Self, TenantError> {
        Ok(Cloud::start(Transport::Https).await?.add(settings))
    }

    /// A tenant with a cloud of its own, over plain HTTP.
    ///
    /// # Errors
    ///
    /// As [`Cloud::start`].
    pub async fn start_plain(settings: Settings) -> Result<Self, TenantError> {
        Ok(Cloud::start(Transport::Http).await?.add(settings))
    }

    /// The cloud it is in.
    pub const fn cloud(&self) -> &Cloud {
        &self.cloud
    }

    /// The base of Graph: `https://127.0.0.1:PORT/v1.0`.
    pub fn graph_url(&self) -> String {
        format!("{}/v1.0", self.cloud.0.service.base)
    }

    /// The base of sign-in: the token endpoint is `{login_url}/{tenant_id}/oauth2/v2.0/token`.
    pub fn login_url(&self) -> String {
        self.cloud.0.service.base.clone()
    }

    /// The authority's certificate in PEM; empty over plain HTTP.
    pub fn ca_pem(&self) -> &str {
        self.cloud.ca_pem()
    }

    /// The tenant's GUID.
    pub fn tenant_id(&self) -> &str {
        &self.world.tenant_id
    }

    /// The registered application.
    pub fn client_id(&self) -> &str {
        &self.world.application.client_id
    }

    /// Its secret, with characters that have to be form-encoded.
    pub fn client_secret(&self) -> &str {
        &self.world.application.secret
    }

    /// The domain that stamps name.
    pub fn initial_domain(&self) -> &str {
        &self.world.stamps.initial_domain
    }

    /// Changes how the services behave, from the next request on.
    pub fn change(&self, change: impl FnOnce(&mut Conduct)) {
        change(
            &mut self
                .world
                .conduct
                .write()
                .unwrap_or_else(PoisonError::into_inner),
        );
        locked(&self.world.traffic).forget_faults();
    }

    /// Sets the roles of tokens issued from now on.
    pub fn grant(&self, permissions: &[&str]) {
        let permissions = permissions.iter().map(|role| (*role).to_owned()).collect();
        *self
            .world
            .permissions
            .write()
            .unwrap_or_else(PoisonError::into_inner) = permissions;
    }

    /// Ends all tokens.
    pub fn expire_tokens(&self) {
        let now = clock::instant();
        for grant in locked(&self.world.tokens).values_mut() {
            grant.expires = now;
        }
    }

    /// Adds a user with an empty mailbox.
    pub fn add_user(&self, user: User) {
        let mut state = locked(&self.world.state);
        let mut mailbox = Mailbox::default();
        for folder in &user.folders {
            mailbox.folder_named(folder);
        }
        state.directory.add_user(user, self.world.seed);
        state.mailboxes.push(mailbox);
    }

    /// Adds a group.
    pub fn add_group(&self, group: Group) {
        locked(&self.world.state)
            .directory
            .add_group(group, self.world.seed);
    }

    /// Delivers a message into mailboxes and queues its journal reports.
    pub fn deliver(&self, mail: &Mail) -> Delivered {
        self.world.deliver(mail, clock::now())
    }

    /// Lets the copies of a [`late`](Mail::late) message arrive; gives their number.
    pub fn arrive(&self, message_id: &str) -> usize {
        self.world.arrive(message_id, clock::now())
    }

    /// The object id of the user with this address or alias.
    pub fn user_id(&self, address: &str) -> Option<String> {
        let state = locked(&self.world.state);
        match state.directory.owner(address)? {
            Owner::User(number) => state
                .directory
                .user_at(number)
                .map(|user| user.id.to_string()),
            _ => None,
        }
    }

    /// What is in a mailbox now; `None` if no user has the address.
    pub fn mailbox(&self, address: &str) -> Option<MailboxView> {
        let state = locked(&self.world.state);
        let Some(Owner::User(number)) = state.directory.owner(address) else {
            return None;
        };
        let mailbox = state.mailboxes.get(number as usize)?;
        let messages = mailbox
            .copies
            .iter()
            .map(|copy| view(copy, mailbox, self.world.tag, number));
        Some(MailboxView {
            messages: messages.collect(),
            folders: mailbox
                .folders()
                .map(|folder| mailbox.folder_label(folder))
                .collect(),
        })
    }

    /// Primary addresses of all users with a mailbox.
    pub fn addresses(&self) -> Vec<String> {
        let state = locked(&self.world.state);
        let with_mailbox = state
            .directory
            .users
            .iter()
            .filter(|user| user.is.kind.has_mailbox());
        with_mailbox.map(|user| user.is.address.clone()).collect()
    }

    /// A user does something with all copies of a message in the own mailbox; gives their number.
    pub fn act(&self, address: &str, message_id: &str, action: &UserAction) -> usize {
        let mut state = locked(&self.world.state);
        let Some(Owner::User(number)) = state.directory.owner(address) else {
            return 0;
        };
        let Some(mailbox) = state.mailboxes.get_mut(number as usize) else {
            return 0;
        };
        let items: Vec<u32> = mailbox
            .copies
            .iter()
            .filter(|copy| &*copy.message.message_id == message_id)
            .map(|copy| copy.item)
            .collect();
        for item in &items {
            act(mailbox, *item, action);
        }
        items.len()
    }

    /// Requests so far, in the order of their ends (unless [`Conduct::log`] is off).
    pub fn requests(&self) -> Vec<Request> {
        locked(&self.world.traffic).log.clone()
    }

    /// Forgets the requests and sums so far.
    pub fn forget_requests(&self) {
        let mut traffic = locked(&self.world.traffic);
        traffic.log.clear();
        traffic.counts = Counts::default();
    }

    /// Sums of the requests so far.
    pub fn counts(&self) -> Counts {
        locked(&self.world.traffic).counts.clone()
    }

    /// How many journal reports wait for a connector.
    pub fn waiting_reports(&self) -> usize {
        locked(&self.world.journal).len()
    }

    /// Takes the waiting journal reports, written out, instead of sending them.
    pub fn take_reports(&self) -> Vec<Vec<u8>> {
        let reports = std::mem::take(&mut *locked(&self.world.journal));
        reports
            .iter()
            .map(|report| report.write(&self.world.stamps))
            .collect()
    }
}

/// What a user can do with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserAction {
    /// Read it.
    Read,
    /// Flag it.
    Flag,
    /// Move it to a well-known folder or an own one, made if it is missing.
    Move(String),
    /// Copy it there.
    Copy(String),
    /// Delete it for good: not even Recoverable Items has it.
    Vanish,
}

fn act(mailbox: &mut Mailbox, item: u32, action: &UserAction) {
    match action {
        UserAction::Vanish => mailbox.remove(item),
        UserAction::Copy(folder) => {
            let folder = mailbox.folder_named(folder);
            mailbox.duplicate(item, folder);
        }
        UserAction::Move(folder) => {
            let folder = mailbox.folder_named(folder);
            if let Some(copy) = mailbox.copy_mut(item) {
                copy.folder = folder;
                copy.generation = copy.generation.wrapping_add(1);
            }
        }
        UserAction::Read | UserAction::Flag => {
            if let Some(copy) = mailbox.copy_mut(item) {
                copy.is_read |= *action == UserAction::Read;
                copy.is_flagged |= *action == UserAction::Flag;
            }
        }
    }
}

/// A mailbox as it was when asked.
#[derive(Debug, Clone)]
pub struct MailboxView {
    /// Every message, whatever its folder.
    pub messages: Vec<MessageView>,
    /// Folders by well-known or display name.
    pub folders: Vec<String>,
}

impl MailboxView {
    /// The messages in a folder.
    pub fn in_folder(&self, folder: &str) -> Vec<&MessageView> {
        self.messages
            .iter()
            .filter(|message| message.folder == folder)
            .collect()
    }

    /// The copies of a message.
    pub fn copies(&self, message_id: &str) -> Vec<&MessageView> {
        self.messages
            .iter()
            .filter(|message| message.message_id == message_id)
            .collect()
    }
}

/// A message in a mailbox as it was when asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageView {
    /// Its immutable id.
    pub immutable_id: String,
    /// Its Message-ID.
    pub message_id: String,
    /// Its subject.
    pub subject: String,
    /// Well-known or display name of its folder.
    pub folder: String,
    /// The network message id of its fork; `None` for the sender's own copy.
    pub network_message_id: Option<String>,
    /// Read.
    pub is_read: bool,
    /// Flagged.
    pub is_flagged: bool,
    /// How often it was moved.
    pub moves: u16,
    /// When it arrived.
    pub received: Timestamp,
}

fn view(copy: &Copy, mailbox: &Mailbox, tenant: u64, number: u32) -> MessageView {
    let fork = copy
        .fork
        .and_then(|fork| copy.message.forks.get(usize::from(fork)));
    MessageView {
        immutable_id: Id {
            kind: Kind::Immutable,
            tenant,
            mailbox: number,
            item: copy.item,
            generation: 0,
        }
        .text(false),
        message_id: copy.message.message_id.to_string(),
        subject: copy.message.subject.to_string(),
        folder: mailbox.folder_label(copy.folder),
        network_message_id: fork.map(ToString::to_string),
        is_read: copy.is_read,
        is_flagged: copy.is_flagged,
        moves: copy.generation,
        received: Timestamp::from_second(copy.received).unwrap_or_default(),
    }
}
