//! Sends requests to Graph: token, connection pool, batches, pacing. The only place that knows HTTP.
//!
//! A client is of one tenant and refuses requests of another, so that the token of one never meets the
//! ids of another. Redirects are not followed: the token goes to the configured hosts alone. The secret
//! is read from its file when a token is due and wiped afterwards; the token lives in memory only.

mod token;
mod wire;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Notify;
use url::Url;
use zeroize::Zeroizing;

use super::api::{Answer, Failure, Request, Trouble, decode_batch, encode_batch};
use super::cloud::Base;
use super::pace::{Admission, Backoff, Ended, Gate, Key};
use super::token::Claims;
use crate::mail::TenantName;
pub use token::TokenError;
use token::{Token, Tokens};
use wire::Wire;

/// Wait after a refusal that names none.
const DEFAULT_WAIT: Duration = Duration::from_secs(5);

/// Repetitions of a single request after trouble that passes.
const REPETITIONS: u32 = 6;

/// Reads a client secret, each time that a token is due: a changed file is taken up by itself.
pub type SecretSource = Arc<dyn Fn() -> Result<Zeroizing<String>, String> + Send + Sync>;

/// The clocks, which only drivers read.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Date and time.
    pub wall: fn() -> Timestamp,
    /// For waits.
    pub monotonic: fn() -> Instant,
}

/// What a client is made of.
#[derive(Clone)]
pub struct Settings {
    /// Whose client.
    pub tenant: TenantName,
    /// Directory (tenant) id.
    pub tenant_id: String,
    /// Application (client) id.
    pub client_id: String,
    /// The client secret.
    pub secret: SecretSource,
    /// Graph, with its version.
    pub graph: Base,
    /// Where tokens come from.
    pub login: Base,
    /// Certificate authorities besides the system's, PEM; each may hold several.
    pub authorities: Vec<Vec<u8>>,
    /// Proxy for every host that is not on loopback; without one, the environment's.
    pub proxy: Option<Url>,
    /// Requests at once over all mailboxes.
    pub limit: usize,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Time for a whole exchange.
    pub timeout: Duration,
    /// After trouble that passes.
    pub backoff: Backoff,
    /// The clocks.
    pub clock: Clock,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("tenant", &self.tenant)
            .field("graph", &self.graph)
            .field("login", &self.login)
            .finish_non_exhaustive()
    }
}

/// Why a request was not answered.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// The client cannot be made.
    #[error("{0}")]
    Setup(String),
    /// A request for another tenant was given to this client. It was not sent.
    #[error(
        "a request for tenant {asked} was given to the client of tenant {own}; it was not sent"
    )]
    OtherTenant {
        /// The client's tenant.
        own: TenantName,
        /// The request's.
        asked: TenantName,
    },
    /// No token.
    #[error(transparent)]
    Token(#[from] Arc<TokenError>),
    /// It never reached Graph.
    #[error("Graph was not reached: {0}")]
    NotSent(String),
    /// Graph refused the whole exchange, and ran nothing of it.
    #[error("Graph refused: {0}")]
    Refused(Failure),
    /// It was sent; whether it ran is not known.
    #[error("the answer of Graph was lost: {0}")]
    Lost(String),
}

impl ClientError {
    /// The request may have run.
    pub const fn may_have_run(&self) -> bool {
        matches!(self, Self::Lost(_))
    }
}

/// A tenant's connection to Graph. Clones share token, pool and pace.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    tenant: TenantName,
    graph: Base,
    wire: Wire,
    tokens: Tokens,
    gate: Mutex<Gate>,
    changed: Notify,
    backoff: Backoff,
    clock: Clock,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("tenant", &self.0.tenant)
            .field("graph", &self.0.graph)
            .finish_non_exhaustive()
    }
}

/// Leave to send a batch. Its share of the limits is given back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    client: Client,
    width: usize,
    requests: Vec<(Key, Ended)>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let now = (self.client.0.clock.monotonic)();
        let requests = self.requests.iter().map(|(key, ended)| (key, *ended));
        self.client.gate().finish(self.width, requests, now);
        self.client.0.changed.notify_waiters();
    }
}

/// Why nothing may be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Not before this instant.
    Until(Instant),
    /// Not before something ends: [`Client::changed`].
    Busy,
}

impl Client {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    ///
    /// [`ClientError::Setup`]: a certificate authority or the proxy cannot be used.
    pub fn new(settings: Settings) -> Result<Self, ClientError> {
        let wire = Wire::new(&settings)?;
        Ok(Self(Arc::new(Inner {
            tokens: Tokens::new(&settings),
            tenant: settings.tenant,
            graph: settings.graph,
            wire,
            gate: Mutex::new(Gate::new(settings.limit)),
            changed: Notify::new(),
            backoff: settings.backoff,
            clock: settings.clock,
        })))
    }

    /// Whose client it is.
    pub fn tenant(&self) -> &TenantName {
        &self.0.tenant
    }

    /// Where Graph is.
    pub fn base(&self) -> &Base {
        &self.0.graph
    }

    /// What the token says about itself; `None` if it cannot be read.
    ///
    /// # Errors
    ///
    /// [`ClientError::Token`].
    pub async fn claims(&self) -> Result<Option<Claims>, ClientError> {
        Ok(self.0.tokens.current(&self.0.wire).await?.claims.clone())
    }

    /// Chooses what of these candidates, most urgent first, may be sent now as one batch.
    ///
    /// # Errors
    ///
    /// [`Wait`]: nothing now.
    pub fn admit(&self, candidates: &[Key]) -> Result<(Vec<usize>, Permit), Wait> {
        let now = (self.0.clock.monotonic)();
        match self.gate().admit(candidates, now) {
            Admission::Until(until) => Err(Wait::Until(until)),
            Admission::Busy => Err(Wait::Busy),
            Admission::Go { chosen, width } => {
                let keys = chosen
                    .iter()
                    .filter_map(|position| candidates.get(*position));
                let permit = Permit {
                    client: self.clone(),
                    width,
                    requests: keys.map(|key| (key.clone(), Ended::Answered)).collect(),
                };
                Ok((chosen, permit))
            }
        }
    }

    /// How much may run at once over all mailboxes, and until when the application has to wait, if it has.
    pub fn pace(&self) -> (usize, Option<Instant>) {
        let now = (self.0.clock.monotonic)();
        let gate = self.gate();
        (gate.limit(), gate.held_until(now))
    }

    /// Completes when something that was running has ended.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.0.changed.notified()
    }

    /// Sends requests as one batch. `None` stands for an answer that is missing.
    ///
    /// # Errors
    ///
    /// [`ClientError`], for all of them together; [`ClientError::may_have_run`] tells whether they have to be
    /// looked up.
    pub async fn batch(
        &self,
        requests: &[Request],
        mut permit: Permit,
    ) -> Result<Vec<Option<Answer>>, ClientError> {
        for request in requests {
            self.own(request)?;
        }
        let body = encode_batch(requests);
        let outer = Outgoing {
            post: true,
            url: self.0.graph.join("/$batch"),
            headers: Vec::new(),
            body: Some(&body),
        };
        let (answer, token) = self.exchange(&outer).await?;
        if let Err(failure) = answer.success() {
            return Err(self.refused(failure));
        }
        let now = (self.0.clock.wall)();
        let answers = decode_batch(&answer.body, requests.len(), now)
            .map_err(|error| ClientError::Lost(error.to_string()))?;
        for ((_, ended), answer) in permit.requests.iter_mut().zip(&answers) {
            let wait = self.0.backoff.first;
            *ended = answer
                .as_ref()
                .map_or(Ended::Answered, |answer| ended_of(answer, wait));
        }
        if answers.iter().flatten().any(|answer| answer.status == 401) {
            self.0.tokens.refused(&token).await;
        }
        Ok(answers)
    }

    /// Sends one reading request by itself, again after trouble that passes.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; answers that are errors of other kinds are answers.
    pub async fn call(&self, request: &Request) -> Result<Answer, ClientError> {
        self.own(request)?;
        let key = request.mailbox().cloned();
        let mut attempt = 0;
        loop {
            let mut permit = self.admitted(&key).await;
            let outgoing = Outgoing {
                post: request.method() == super::api::Method::Post,
                url: self.0.graph.join(request.target()),
                headers: request.headers(),
                body: request.body(),
            };
            let result = self.exchange(&outgoing).await.map(|(answer, _)| answer);
            let wait = match &result {
                Ok(answer) => match answer.success().map_err(|failure| failure.trouble) {
                    Err(Trouble::Throttled | Trouble::Transient) => answer.retry_after,
                    _ => return result,
                },
                Err(ClientError::NotSent(_) | ClientError::Lost(_)) => None,
                Err(_) => return result,
            };
            if let (Ok(answer), [(_, ended)]) = (&result, permit.requests.as_mut_slice()) {
                *ended = ended_of(answer, self.0.backoff.first);
            }
            drop(permit);
            if attempt == REPETITIONS {
                return result;
            }
            let wait = wait.unwrap_or_else(|| self.0.backoff.wait(attempt, 0));
            tokio::time::sleep_until(((self.0.clock.monotonic)() + wait).into()).await;
            attempt += 1;
        }
    }

    async fn admitted(&self, key: &Key) -> Permit {
        loop {
            let changed = self.changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.admit(std::slice::from_ref(key)) {
                Ok((_, permit)) => return permit,
                Err(Wait::Until(until)) => tokio::time::sleep_until(until.into()).await,
                Err(Wait::Busy) => changed.await,
            }
        }
    }

    /// One exchange with a token, and once more with a new one if it is refused.
    async fn exchange(&self, outgoing: &Outgoing<'_>) -> Result<(Answer, Arc<Token>), ClientError> {
        let token = self.0.tokens.current(&self.0.wire).await?;
        let answer = self.0.wire.send(outgoing, &token.bearer).await?;
        if answer.status != 401 {
            return Ok((answer, token));
        }
        self.0.tokens.refused(&token).await;
        let token = self.0.tokens.current(&self.0.wire).await?;
        let answer = self.0.wire.send(outgoing, &token.bearer).await?;
        Ok((answer, token))
    }

    /// A whole batch was answered with an error.
    fn refused(&self, failure: Failure) -> ClientError {
        let now = (self.0.clock.monotonic)();
        match failure.trouble {
            Trouble::Throttled => {
                let wait = failure.retry_after.unwrap_or(DEFAULT_WAIT);
                self.gate().hold(wait, now);
                ClientError::Refused(failure)
            }
            Trouble::Transient | Trouble::Unknown => {
                if let Some(wait) = failure.retry_after {
                    self.gate().hold(wait, now);
                }
                // Who answered, and when, is not known: a part may have run.
                ClientError::Lost(failure.to_string())
            }
            _ => ClientError::Refused(failure),
        }
    }

    fn own(&self, request: &Request) -> Result<(), ClientError> {
        if *request.tenant() == self.0.tenant {
            return Ok(());
        }
        Err(ClientError::OtherTenant {
            own: self.0.tenant.clone(),
            asked: request.tenant().clone(),
        })
    }

    fn gate(&self) -> std::sync::MutexGuard<'_, Gate> {
        self.0.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a request ended, for the gate. `wait`: where a refusal names none.
fn ended_of(answer: &Answer, wait: Duration) -> Ended {
    match (answer.status, answer.retry_after) {
        (429, asked) => Ended::Throttled(asked.unwrap_or(wait)),
        (503 | 504, Some(asked)) => Ended::Unavailable(asked),
        _ => Ended::Answered,
    }
}

/// An exchange that is to be made.
struct Outgoing<'a> {
    post: bool,
    url: String,
    headers: Vec<(&'static str, &'static str)>,
    body: Option<&'a serde_json::Value>,
}
