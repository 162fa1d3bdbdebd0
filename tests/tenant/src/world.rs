//! The state of one tenant behind its services.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::directory::{Directory, initial_domain};
use crate::ids;
use crate::mail::deliver::{Late, Post};
use crate::mail::journal::{Report, Stamps};
use crate::mail::{Delivered, Mail};
use crate::mailbox::Mailbox;
use crate::random::{self, Random};
use crate::settings::{Conduct, Journaling, Settings};
use crate::traffic::Traffic;

/// A tenant.
#[derive(Debug)]
pub(crate) struct World {
    /// Decides ids, faults and orders.
    pub(crate) seed: u64,
    /// Display name.
    pub(crate) name: String,
    /// GUID of the tenant.
    pub(crate) tenant_id: String,
    /// What ids of the tenant carry.
    pub(crate) tag: u64,
    /// The registered application.
    pub(crate) application: Application,
    /// How the services behave.
    pub(crate) conduct: RwLock<Conduct>,
    /// Roles of new tokens.
    pub(crate) permissions: RwLock<Vec<String>>,
    /// Tokens that were issued.
    pub(crate) tokens: Mutex<HashMap<String, Grant>>,
    /// Users, mailboxes, mail.
    pub(crate) state: Mutex<State>,
    /// Journal reports that wait for a connector.
    pub(crate) journal: Mutex<VecDeque<Report>>,
    /// Told when a report is queued.
    pub(crate) journaled: Notify,
    /// What reports say about the tenant.
    pub(crate) stamps: Stamps,
    /// Requests: what runs, what was, what was throttled.
    pub(crate) traffic: Mutex<Traffic>,
}

/// The application that a client signs in as.
#[derive(Debug, Clone)]
pub(crate) struct Application {
    pub(crate) client_id: String,
    pub(crate) secret: String,
}

/// What a token allows.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    /// Application permissions.
    pub(crate) roles: Vec<String>,
    /// When it ends.
    pub(crate) expires: Instant,
}

/// Users, mailboxes, mail.
#[derive(Debug)]
pub(crate) struct State {
    /// Who has which address.
    pub(crate) directory: Directory,
    /// Mailboxes by user number; those of users without one stay empty.
    pub(crate) mailboxes: Vec<Mailbox>,
    late: Vec<Late>,
    random: Random,
}

impl World {
    /// The tenant that `settings` describe.
    pub(crate) fn new(settings: Settings) -> Self {
        let mut random = Random::new(random::hash(
            settings.seed,
            &[b"tenant", settings.name.as_bytes()],
        ));
        let tenant_id = settings
            .tenant_id
            .clone()
            .unwrap_or_else(|| random.guid().to_string());
        let application = Application {
            client_id: random.guid().to_string(),
            // The characters that have to be encoded in a form.
            secret: format!("~S8Q+{}&%=", random.guid().simple()),
        };
        let directory = Directory::new(&settings);
        let mailboxes = directory.users.iter().map(|user| {
            let mut mailbox = Mailbox::default();
            for folder in &user.is.folders {
                mailbox.folder_named(folder);
            }
            mailbox
        });
        let mailboxes = mailboxes.collect();
        let stamps = Stamps {
            tenant_id: tenant_id.clone(),
            initial_domain: initial_domain(&settings.domains),
            journaling: settings.journaling.clone(),
        };
        Self {
            seed: settings.seed,
            name: settings.name,
            tag: ids::tenant_tag(&tenant_id),
            tenant_id,
            application,
            conduct: RwLock::new(settings.conduct),
            permissions: RwLock::new(settings.permissions),
            tokens: Mutex::default(),
            state: Mutex::new(State {
                directory,
                mailboxes,
                late: Vec::new(),
                random,
            }),
            journal: Mutex::default(),
            journaled: Notify::new(),
            stamps,
            traffic: Mutex::default(),
        }
    }

    /// How the services behave now.
    pub(crate) fn conduct(&self) -> Conduct {
        self.conduct
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Delivers a message and queues its reports.
    pub(crate) fn deliver(&self, mail: &Mail, now: Timestamp) -> Delivered {
        let (delivered, reports) = locked(&self.state)
            .post(&self.stamps.journaling, now)
            .deliver(mail);
        self.queue(reports);
        delivered
    }

    /// Lets the held-back copies of a message arrive; how many there were.
    pub(crate) fn arrive(&self, message_id: &str, now: Timestamp) -> usize {
        locked(&self.state)
            .post(&self.stamps.journaling, now)
            .arrive(message_id)
    }

    /// Queues reports for the connector.
    pub(crate) fn queue(&self, reports: Vec<Report>) {
        locked(&self.journal).extend(reports);
        self.journaled.notify_waiters();
    }
}

impl State {
    fn post<'a>(&'a mut self, journaling: &'a Journaling, now: Timestamp) -> Post<'a> {
        Post {
            directory: &self.directory,
            mailboxes: &mut self.mailboxes,
            late: &mut self.late,
            random: &mut self.random,
            journaling,
            now,
        }
    }
}

/// The value behind a lock. A panic elsewhere, which a test shows anyway, does not matter here.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
