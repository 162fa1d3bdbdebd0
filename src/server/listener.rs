//! The listening sockets: from systemd or bound here, and the loop that accepts.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::register::count_connection;
use super::{Shared, clock, connection};
use crate::smtp::{Event, Refusal, Session};

/// Connections that the kernel keeps for us while we are busy.
const BACKLOG: u32 = 1024;

/// File descriptors that connections leave alone: the store's files, the admin socket, Graph.
const RESERVED_DESCRIPTORS: u64 = 256;

/// How long nothing is accepted after the system had no descriptor or memory for a connection.
const REST: Duration = Duration::from_millis(50);

/// Not more often than this is the same trouble logged.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// Why we do not listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another program has the port.
    #[error(
        "{address}: the port is in use by another program; stop that one (\"ss -ltnp\" shows it), \
             or give smtp.listen another address"
    )]
    InUse {
        /// What was to be bound.
        address: SocketAddr,
    },
    /// Only root may use ports below 1024.
    #[error(
        "{address}: not permitted; start the service through its systemd socket, give it \
             CAP_NET_BIND_SERVICE, or give smtp.listen a port above 1023"
    )]
    NotPermitted {
        /// What was to be bound.
        address: SocketAddr,
    },
    /// This machine does not have the address.
    #[error("{address}: this machine has no such address; correct smtp.listen")]
    NoSuchAddress {
        /// What was to be bound.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("{address}: cannot listen: {error}; see smtp.listen")]
    Other {
        /// What was to be bound.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// systemd passed a socket that is none of ours.
    #[error(
        "the socket that systemd passed cannot be used: {0}; see ListenStream in clawback.socket"
    )]
    Passed(io::Error),
}

impl ListenError {
    fn new(address: SocketAddr, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address },
            io::ErrorKind::PermissionDenied => Self::NotPermitted { address },
            io::ErrorKind::AddrNotAvailable => Self::NoSuchAddress { address },
            _ => Self::Other { address, error },
        }
    }
}

/// The sockets that systemd passed, else new ones on these addresses. To be called inside a runtime.
///
/// # Errors
///
/// [`ListenError`]: the administrator must change something.
pub fn listen(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, ListenError> {
    let passed = passed().map_err(ListenError::Passed)?;
    if !passed.is_empty() {
        return Ok(passed);
    }
    addresses
        .iter()
        .map(|&address| bind(address).map_err(|error| ListenError::new(address, error)))
        .collect()
}

/// The sockets of a systemd socket unit.
fn passed() -> io::Result<Vec<TcpListener>> {
    let mut descriptors = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..descriptors.len() {
        if let Some(listener) = descriptors.take_tcp_listener(index)? {
            listener.set_nonblocking(true)?;
            listeners.push(TcpListener::from_std(listener)?);
        }
    }
    Ok(listeners)
}

/// A new listening socket; `[::]` takes IPv4 too, unless the system is told otherwise.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A restart must not wait for the old connections' TIME-WAIT; a live listener still refuses us.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Raises the limit of file descriptors as far as it goes. How many connections fit below it.
pub(super) fn connections_that_fit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let descriptors = current.unwrap_or(u64::MAX);
    let fit = descriptors.saturating_sub(RESERVED_DESCRIPTORS).max(1);
    usize::try_from(fit).unwrap_or(usize::MAX)
}

/// Accepts connections until the receiver stops.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let mut quiet_until: Option<std::time::Instant> = None;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => greet(&shared, stream, peer),
            // The peer was gone before we came to it.
            Err(error) if is_of_peer(&error) => {}
            Err(error) => {
                let now = clock::now();
                if quiet_until.is_none_or(|until| now >= until) {
                    quiet_until = Some(now + COMPLAINT_INTERVAL);
                    let connections = shared.register.len();
                    warn!(%error, connections, "no connection can be accepted; raise LimitNOFILE \
                          or lower smtp.max_connections");
                }
                shared.register.make_room();
                sleep_until(Instant::from_std(now + REST)).await;
            }
        }
    }
}

/// Whether accepting failed because of this one connection only (accept(2)).
fn is_of_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::TimedOut
    )
}

/// Starts the session of a new connection, or turns it away.
fn greet(shared: &Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
    let settings = shared.settings.load_full();
    let ip = peer.ip().to_canonical();
    match shared.register.admit(ip, settings.limits) {
        Ok(place) => {
            count_connection("accepted");
            if let Err(error) = stream.set_nodelay(true) {
                debug!(peer = %ip, %error, "TCP_NODELAY cannot be set");
            }
            let session = connection::serve(Arc::clone(shared), settings, stream, ip, place);
            shared.tasks.spawn(session);
        }
        Err(refusal) => {
            count_connection(match refusal {
                Refusal::TooManyFromPeer => "too_many_of_peer",
                _ => "too_many",
            });
            let connections = shared.register.len();
            shared
                .complaints
                .refused(refusal, ip, connections, clock::now());
            turn_away(
                shared,
                &stream,
                Session::refuse(Arc::clone(&settings.smtp), refusal, clock::now()),
            );
        }
    }
}

/// Says 421. The reply fits into the empty buffer of a new connection, so nothing waits.
fn turn_away(shared: &Shared, stream: &TcpStream, mut session: Session) {
    while let Some(event) = session.poll_event() {
        match event {
            Event::Reply(octets) => {
                // If it does not go out, the close says enough.
                drop(stream.try_write(&octets));
            }
            Event::Refused(reason) => shared.count_refusal(reason),
            _ => return,
        }
    }
}
