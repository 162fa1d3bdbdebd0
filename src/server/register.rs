//! The open connections: how many there may be, and which gives way when they get many.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{counter, gauge};
use tokio::sync::Notify;

use crate::smtp::Refusal;
use crate::telemetry::metric;

/// How many connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) connections: usize,
    pub(crate) per_peer: usize,
}

impl Limits {
    /// From here on each new connection sends an old one away.
    fn crowded(self) -> usize {
        self.connections.saturating_mul(4) / 5
    }
}

/// Every open connection, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Register(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    last: u64,
    connections: BTreeMap<u64, Arc<Handle>>,
    by_peer: HashMap<IpAddr, usize>,
}

/// What the register and a connection tell each other.
#[derive(Debug, Default)]
struct Handle {
    /// A message for us is under way: this connection is not sent away.
    busy: AtomicBool,
    /// It was asked to go. Whatever it does about that, the next time another one is asked.
    asked: AtomicBool,
    go: Notify,
}

impl Register {
    /// A place for a new connection; an older one that is not busy is asked to go when there are
    /// many.
    pub(crate) fn admit(self: &Arc<Self>, peer: IpAddr, limits: Limits) -> Result<Place, Refusal> {
        let peer = network_of(peer);
        let mut open = self.lock();
        if open.connections.len() >= limits.crowded() {
            open.ask_oldest();
        }
        if open.connections.len() >= limits.connections {
            return Err(Refusal::TooManyConnections);
        }
        let of_peer = open.by_peer.entry(peer).or_default();
        if *of_peer >= limits.per_peer {
            return Err(Refusal::TooManyFromPeer);
        }
        *of_peer += 1;
        open.last += 1;
        let number = open.last;
        let handle = Arc::<Handle>::default();
        open.connections.insert(number, Arc::clone(&handle));
        count(open.connections.len());
        Ok(Place {
            register: Arc::clone(self),
            number,
            peer,
            handle,
        })
    }

    /// Asks the oldest connection that is not busy to go: file descriptors have run out.
    pub(crate) fn make_room(&self) {
        self.lock().ask_oldest();
    }

    /// Connections that are open.
    pub(crate) fn len(&self) -> usize {
        self.lock().connections.len()
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // Nothing panics while it is held, and if it did, what it guards would still be right.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn ask_oldest(&self) {
        let idle = self.connections.values().find(|handle| {
            !handle.busy.load(Ordering::Relaxed) && !handle.asked.load(Ordering::Relaxed)
        });
        if let Some(handle) = idle {
            handle.asked.store(true, Ordering::Relaxed);
            handle.go.notify_one();
        }
    }
}

/// One connection's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    register: Arc<Register>,
    number: u64,
    peer: IpAddr,
    handle: Arc<Handle>,
}

impl Place {
    /// Number of the session, unique since the start.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Tells the register whether a message for us is under way. One that ends may be asked again.
    pub(crate) fn set_busy(&self, busy: bool) {
        if self.handle.busy.swap(busy, Ordering::Relaxed) != busy {
            self.handle.asked.store(false, Ordering::Relaxed);
        }
    }

    /// Others need the place. Resolves once for each time it was asked.
    pub(crate) async fn asked_to_go(&self) {
        self.handle.go.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.register.lock();
        open.connections.remove(&self.number);
        if let Some(of_peer) = open.by_peer.get_mut(&self.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                open.by_peer.remove(&self.peer);
            }
        }
        count(open.connections.len());
    }
}

/// Publishes the number of connections.
#[expect(
    clippy::cast_precision_loss,
    reason = "far fewer than 2^52 connections"
)]
fn count(connections: usize) {
    gauge!(metric::CONNECTIONS).set(connections as f64);
}

/// Counts a connection by what became of it.
pub(crate) fn count_connection(result: &'static str) {
    counter!(metric::CONNECTIONS_TOTAL, "result" => result).increment(1);
}

/// What counts as one peer: an IPv4 address, or the /64 of an IPv6 address, which one host has.
fn network_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = u128::from(address) >> 64 << 64;
            IpAddr::V6(prefix.into())
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        connections: 10,
        per_peer: 4,
    };

    fn peer(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    fn is_asked(place: &Place) -> bool {
        place.handle.asked.load(Ordering::Relaxed)
    }

    #[test]
    fn the_oldest_idle_connection_gives_way() {
        let register = Arc::<Register>::default();
        let admit = |number| register.admit(peer(number), LIMITS).unwrap();
        let mut places: Vec<_> = (0..8).map(admit).collect();
        assert!(places.iter().all(|place| !is_asked(place)));
        places[0].set_busy(true);
        places.push(admit(8));
        assert!(!is_asked(&places[0]), "a transaction is running");
        assert!(is_asked(&places[1]), "the oldest without one");
        places.push(admit(9));
        assert!(is_asked(&places[2]), "one that does not go is passed over");
        places[1].set_busy(true);
        places[1].set_busy(false);
        assert!(
            !is_asked(&places[1]),
            "after a message it may be asked again"
        );
        let refused = register.admit(peer(10), LIMITS).map(drop);
        assert_eq!(refused, Err(Refusal::TooManyConnections));
        places.clear();
        assert_eq!(register.len(), 0);
    }

    #[test]
    fn one_peer_gets_its_share_only() {
        let register = Arc::<Register>::default();
        let prefix = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last]);
        let places: Vec<_> = (0..4)
            .map(|last| register.admit(prefix(last), LIMITS).unwrap())
            .collect();
        let refused = register.admit(prefix(9), LIMITS).map(drop);
        assert_eq!(
            refused,
            Err(Refusal::TooManyFromPeer),
            "one /64 is one peer"
        );
        assert!(register.admit(peer(1), LIMITS).is_ok());
        drop(places);
        assert!(register.admit(prefix(9), LIMITS).is_ok());
    }
}
