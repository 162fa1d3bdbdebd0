//! Answers the commands: HTTP/1.1 over a Unix socket, NDJSON for what may be long.
//!
//! In come requests of local users, whose authority is read from the socket (`caller`); out go
//! documents of DESIGN's JSON, or problem+json with the exit code that the command ends with. Only
//! one process may have the store open, so every command that needs it asks here.

mod caller;
mod clock;
mod csv;
mod import;
mod jobs;
pub(crate) mod log;
mod messages;
mod problem;
mod quarantine;
mod socket;
mod status;
mod store;
mod stream;
mod take;

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwap;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::Method;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use jiff::Timestamp;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

pub(crate) use caller::user_name;
pub use caller::{Authority, Peer};
pub use socket::{SocketError, bind};

use crate::audit::Audit;
use crate::calendar::Calendar;
use crate::config::Config;
use crate::escape;
use crate::index::Store;
use crate::key::StoreKey;
use crate::quarantine::Quarantine;
use crate::server::{Feed, Receiver};
use crate::worker::Worker;
use problem::Problem;

/// What the answers come from.
#[derive(Clone)]
pub struct Parts {
    /// The configuration of now; a reload swaps it.
    pub config: Arc<ArcSwap<Config>>,
    /// The reports.
    pub store: Store,
    /// What was not believed or not understood.
    pub quarantine: Quarantine,
    /// The time by which things grow old.
    pub calendar: Calendar,
    /// What the start found damaged in the state of jobs.
    pub state_damage: Arc<[String]>,
    /// What was done.
    pub audit: Arc<Audit>,
    /// Runs retraction jobs.
    pub worker: Worker,
    /// The state of the feeds.
    pub feed: Feed,
    /// Port 25, once it answers.
    pub receiver: Arc<RwLock<Option<Receiver>>>,
    /// The key of audit log and quarantine.
    pub key: Arc<StoreKey>,
    /// When the service started.
    pub started: Timestamp,
}

/// What every handler has.
#[derive(Clone)]
struct Service {
    parts: Arc<Parts>,
    /// The group that the socket belongs to.
    door: Option<u32>,
    /// Held by the import under way.
    importing: Arc<tokio::sync::Mutex<()>>,
}

impl Service {
    fn config(&self) -> Arc<Config> {
        self.parts.config.load_full()
    }

    /// Whether reports are taken.
    fn is_ready(&self) -> bool {
        let receiver = self.parts.receiver.read();
        receiver.unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// Answers until `stop` is cancelled and the requests under way have ended.
///
/// # Errors
///
/// What the system said of the socket.
pub async fn serve(
    parts: Parts,
    listener: UnixListener,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let door = listener
        .local_addr()?
        .as_pathname()
        .and_then(|path| Some(path.metadata().ok()?.gid()));
    let service = Service {
        parts: Arc::new(parts),
        door,
        importing: Arc::default(),
    };
    let router = router(service).into_make_service_with_connect_info::<Peer>();
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

fn router(service: Service) -> Router {
    let api = Router::new()
        .route("/v1/messages", get(messages::search))
        .route("/v1/messages/{message}", get(messages::show))
        .route("/v1/jobs", get(jobs::list).post(jobs::start))
        .route("/v1/jobs/{id}", get(jobs::show))
        .route("/v1/quarantine", get(quarantine::list))
        .route("/v1/quarantine/{id}", get(quarantine::show))
        .route("/v1/quarantine/{id}/content", get(quarantine::content))
        .route("/v1/quarantine/retry", post(quarantine::retry))
        .route("/v1/quarantine/accept", post(quarantine::accept))
        .route("/v1/quarantine/drop", post(quarantine::remove))
        .route("/v1/import", post(import::import))
        .route("/v1/status", get(status::status))
        .route("/v1/store", get(store::stats))
        .route("/v1/store/verify", get(store::verify))
        .route("/v1/audit", get(log::show))
        .route("/v1/audit/verify", get(log::verify))
        .layer(middleware::from_fn_with_state(service.clone(), admit));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .merge(api)
        .fallback(|| async { Problem::usage("this version has no such request") })
        .with_state(service)
}

async fn ready(State(service): State<Service>) -> Response {
    if service.is_ready() {
        "ready\n".into_response()
    } else {
        Problem::trouble("the receiver does not answer yet").into_response()
    }
}

/// Lets in who may, and records who asked for what.
async fn admit(
    State(service): State<Service>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let config = service.config();
    let authority = peer.authority(&config.admin, service.door);
    // The content of a held message is mail; whoever may only look sees no mail.
    let acts = request.method() != Method::GET || request.uri().path().ends_with("/content");
    let needed = if acts {
        Authority::Operate
    } else {
        Authority::View
    };
    let allowed = authority >= needed;
    let path = escape::short(request.uri().path(), 256).into_owned();
    let (uid, pid, login_uid) = (peer.uid, peer.pid, peer.login_uid);
    if acts || !allowed {
        info!(method = %request.method(), path, uid, pid, login_uid, allowed, "admin request");
    } else {
        debug!(method = %request.method(), path, uid, pid, login_uid, "admin request");
    }
    if !allowed {
        let groups = if acts {
            &config.admin.operators
        } else {
            &config.admin.viewers
        };
        let key = if acts { "operators" } else { "viewers" };
        return Problem::policy(format!(
            "user {} may not do this; admin.{key} allows the groups {}",
            peer.uid
                .map_or_else(|| "unknown".into(), |uid| uid.to_string()),
            groups.join(", ")
        ))
        .into_response();
    }
    // Any request may name a tenant, whether or not its answer depends on one.
    if let Ok(Query(terms)) = Query::<HashMap<String, String>>::try_from_uri(request.uri())
        && let Err(problem) = check_tenant(&config, terms.get("tenant"))
    {
        return problem.into_response();
    }
    request.extensions_mut().insert(peer);
    next.run(request).await
}

/// A tenant that the configuration does not have is more likely mistyped than empty.
fn check_tenant(config: &Config, name: Option<&String>) -> Result<(), Problem> {
    let Some(name) = name.filter(|name| config.tenant(name).is_none()) else {
        return Ok(());
    };
    let names = config.tenants.iter().map(|tenant| tenant.name.as_str());
    let known: Vec<&str> = names.collect();
    Err(Problem::usage(format!(
        "there is no tenant {name:?}; the configuration has {}",
        if known.is_empty() {
            "none".into()
        } else {
            known.join(", ")
        }
    )))
}

/// The peer, as handlers take it.
type Caller = Extension<Peer>;
