//! The instants that a session's time-outs count from.
//!
//! An idle time-out alone keeps nobody from holding a place with one octet now and then, so three
//! bounds hold together: a command must be *complete* within the idle time-out, content must come
//! at [`CONTENT_OCTETS_PER_SECOND`] over each idle time-out, and from one message to the next there
//! is at most [`MESSAGE_TIMEOUT`].

use std::time::{Duration, Instant};

use super::{CONTENT_OCTETS_PER_SECOND, MESSAGE_TIMEOUT};

#[derive(Debug)]
pub(super) struct Times {
    /// The latest that a driver's call named.
    now: Instant,
    /// The last command was complete, or what it asked for was answered.
    command: Instant,
    /// The session began, or the driver answered the end of a message.
    message: Instant,
    /// Content is judged from here on ...
    window: Instant,
    /// ... in which so many octets of it have come.
    window_octets: u64,
    /// The peer completed a command or sent content.
    activity: Instant,
}

impl Times {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            now,
            command: now,
            message: now,
            window: now,
            window_octets: 0,
            activity: now,
        }
    }

    /// It is `now`; whatever happens next, happens then.
    pub(super) const fn set(&mut self, now: Instant) {
        self.now = now;
    }

    /// A command was complete.
    pub(super) const fn command_came(&mut self) {
        self.command = self.now;
        self.activity = self.now;
    }

    /// The peer is listened to again.
    pub(super) const fn listening(&mut self) {
        self.command = self.now;
    }

    /// The message was answered.
    pub(super) const fn message_answered(&mut self) {
        self.message = self.now;
    }

    /// Content is awaited from now on.
    pub(super) const fn content_awaited(&mut self) {
        (self.window, self.window_octets) = (self.now, 0);
    }

    /// So many octets of content came. With enough of them the next window begins.
    pub(super) fn content_came(&mut self, octets: u64, idle: Duration) {
        self.activity = self.now;
        self.window_octets = self.window_octets.saturating_add(octets);
        let enough = u128::from(CONTENT_OCTETS_PER_SECOND) * idle.as_millis() / 1000;
        if u128::from(self.window_octets) >= enough {
            self.content_awaited();
        }
    }

    /// When the next command is too late.
    pub(super) fn command_timeout(&self, idle: Duration) -> Instant {
        (self.command + idle).min(self.message + MESSAGE_TIMEOUT)
    }

    /// When content is too slow.
    pub(super) fn content_timeout(&self, idle: Duration) -> Instant {
        (self.window + idle).min(self.message + MESSAGE_TIMEOUT)
    }

    /// When the handshake is too late, which the last command asked for.
    pub(super) fn handshake_timeout(&self, handshake: Duration) -> Instant {
        self.command + handshake
    }

    /// When the peer last completed a command or sent content.
    pub(super) const fn activity(&self) -> Instant {
        self.activity
    }
}
