//! `serve`: the service in the foreground, as systemd runs it.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use super::service::Running;
use super::{Context, Exit, Failure, Global, Outcome};
use crate::config::Config;
use crate::onboard;
use crate::server::systemd;
use crate::telemetry::{self, Verbosity};

/// How long a stop may take, at most; systemd is asked for the same.
const STOP_PATIENCE: Duration = Duration::from_secs(45);

/// Run the service in the foreground
///
/// Takes its sockets from systemd or binds them. SIGHUP reloads configuration and certificate; a bad
/// new configuration is refused and the old one stays. SIGTERM ends it once running transactions
/// have ended. Every refused start is exit 2, with file or address.
#[derive(Debug, Args)]
pub(super) struct Arguments {}

pub(super) fn run(context: &mut Context, _: &Arguments) -> Outcome {
    let config = context.config()?;
    telemetry::start_logs(verbosity(&context.global));
    guard_secrets();
    for warning in &config.warnings {
        warn!("{warning}");
    }
    for finding in onboard::open_modes(&config) {
        warn!("{}", finding.found);
    }
    if config.tenants.is_empty() {
        warn!(
            "{}: there is no [[tenant]], so no report is accepted",
            config.path.display()
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::usage(format!("no event loop: {error}")))?;
    let path = context.global.config.clone();
    let outcome = runtime.block_on(serve(config, &path));
    // Threads that block do not keep a service that has stopped.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn serve(config: Config, path: &Path) -> Outcome {
    let mut signals =
        Signals::new().map_err(|error| Failure::usage(format!("no signals: {error}")))?;
    let running = Running::start(config).await?;
    tokio::spawn(systemd::feed_watchdog());
    let status = format!("receiving on {}", addresses(&running));
    info!(version = env!("CARGO_PKG_VERSION"), "started");
    systemd::ready(&status);
    loop {
        tokio::select! {
            _ = signals.hangup.recv() => {
                systemd::reloading();
                reload(&running, path);
                systemd::ready(&status);
            }
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
        }
    }
    systemd::stopping(STOP_PATIENCE);
    running.stop().await;
    info!("stopped");
    Ok(Exit::Done)
}

/// Reads the configuration again. Whatever is wrong with it, the service goes on with the old one.
fn reload(running: &Running, path: &Path) {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(problems) => {
            for problem in problems.problems {
                error!("new configuration refused, the old one stays: {problem}");
            }
            return;
        }
    };
    for warning in &config.warnings {
        warn!("{warning}");
    }
    if let Err(error) = running.reload(config) {
        error!("new configuration refused, the old one stays: {error}");
    }
}

fn addresses(running: &Running) -> String {
    let addresses: Vec<String> = running
        .addresses()
        .iter()
        .map(ToString::to_string)
        .collect();
    addresses.join(", ")
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

fn verbosity(global: &Global) -> Verbosity {
    match (global.quiet, global.verbose) {
        (true, _) => Verbosity::Quiet,
        (_, 0) => Verbosity::Normal,
        (_, 1) => Verbosity::Debug,
        _ => Verbosity::Trace,
    }
}

/// Client secrets, tokens and the store key are in memory: no core dump, no look from outside.
fn guard_secrets() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        warn!(%error, "core dumps cannot be turned off");
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        warn!(%error, "the process cannot be made undumpable");
    }
}
