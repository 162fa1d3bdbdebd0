//! The time by which things grow old, as far as it can be believed.
//!
//! Whatever is removed by age goes by this calendar and not by the clock: a clock that went ahead
//! would have everything removed. In comes what the clock says; out goes a time that is believed, or a
//! [`Doubt`]. A time within a day of the last one believed is believed. Any other is in doubt until
//! the clock has run on from there for a day without another jump. The doubt is kept in a file, so that
//! a restart ends none.
//!
//! The file is one line of fixed length that is written in place: a full disk does not keep the time
//! from going on, and so does not keep retention from making room. A file that is missing or damaged
//! says nothing of the time, and so begins with a doubt.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tracing::{info, warn};

/// A clock that differs by more than this from the time believed last has jumped, and must run for as
/// long to be believed again.
const JUMP: Duration = Duration::from_hours(24);
/// A clock in doubt that moves by more than this between two looks has jumped again. Longer than the
/// time between two looks, or than a restart takes.
const JUMP_IN_DOUBT: Duration = Duration::from_hours(1);

/// The calendar; clones share it.
#[derive(Debug, Clone)]
pub struct Calendar(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    state: State,
    /// The doubt that stands in the system's journal, by its beginning.
    told: Option<Timestamp>,
}

/// Nothing may be removed by age now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the clock is not believed before {until}: it runs since {since} only, and {believed} was the time before; if it is wrong, set it"
)]
pub struct Doubt {
    /// The time believed last; [`Timestamp::MIN`] if none is known.
    pub believed: Timestamp,
    /// Since when, by itself, the clock has run without a jump.
    pub since: Timestamp,
    /// From when on it is believed.
    pub until: Timestamp,
}

/// What is known of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    /// The time believed last.
    believed: Timestamp,
    doubt: Option<Run>,
}

/// How a clock in doubt has run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    since: Timestamp,
    seen: Timestamp,
}

impl Calendar {
    /// What the file says of the time. Nothing is written.
    pub fn open(path: &Path) -> Self {
        let state = match std::fs::read_to_string(path) {
            Ok(text) => State::parse(&text).unwrap_or_else(|| {
                warn!(file = %path.display(), "the time believed last cannot be read; the clock must run for a day to be believed");
                State::UNKNOWN
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    warn!(file = %path.display(), %error, "the time believed last cannot be read; the clock must run for a day to be believed");
                }
                State::UNKNOWN
            }
        };
        Self(Arc::new(Shared {
            path: path.to_owned(),
            known: Mutex::new(Known { state, told: None }),
        }))
    }

    /// The time by which things may be removed. To be asked several times an hour. Blocks for the disk.
    ///
    /// # Errors
    ///
    /// [`Doubt`]: nothing may be removed by age.
    pub fn check(&self, now: Timestamp) -> Result<Timestamp, Doubt> {
        let mut known = self.0.lock();
        let checked = known.state.check(now);
        known.tell(&checked);
        if let Err(error) = self.0.write(&known.state) {
            // What stays there is an earlier time: a restart has one doubt more, and drops nothing.
            warn!(file = %self.0.path.display(), %error, "the time cannot be kept");
        }
        checked
    }

    /// The time to record of what arrives now: never before one that was believed, or what arrives under
    /// a clock that fell back would be removed as soon as that is set right.
    pub fn stamp(&self, now: Timestamp) -> Timestamp {
        now.max(self.0.lock().state.believed)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Known> {
        // Every change under the lock is complete before anything can panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, state: &State) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.path)?;
        file.write_all_at(state.to_string().as_bytes(), 0)?;
        file.sync_data()
    }
}

impl Known {
    /// Puts a doubt into the system's journal, once, and its end.
    fn tell(&mut self, checked: &Result<Timestamp, Doubt>) {
        match checked {
            Err(doubt) if self.told == Some(doubt.since) => {}
            Err(doubt) if doubt.believed == Timestamp::MIN => {
                info!(until = %doubt.until, "nothing is dropped by age before the clock has run for a day");
            }
            Err(doubt) => {
                warn!(%doubt, "the clock has jumped, or nothing ran for long; nothing is dropped by age for now");
            }
            Ok(now) if self.told.is_some() => info!(%now, "the clock is believed"),
            Ok(_) => {}
        }
        self.told = checked.as_ref().err().map(|doubt| doubt.since);
    }
}

impl State {
    /// Nothing is known.
    const UNKNOWN: Self = Self {
        believed: Timestamp::MIN,
        doubt: None,
    };

    fn check(&mut self, now: Timestamp) -> Result<Timestamp, Doubt> {
        let distance = |from: Timestamp| now.duration_since(from).unsigned_abs();
        let run = match self.doubt {
            _ if distance(self.believed) <= JUMP => None,
            Some(run) if distance(run.seen) <= JUMP_IN_DOUBT => Some(run.since),
            _ => Some(now),
        };
        // `until` cannot be beyond the end of time: then nothing is ever removed.
        let until = |since: Timestamp| since.saturating_add(JUMP).unwrap_or(Timestamp::MAX);
        match run {
            Some(since) if now < until(since) => {
                self.doubt = Some(Run { since, seen: now });
                Err(Doubt {
                    believed: self.believed,
                    since,
                    until: until(since),
                })
            }
            _ => {
                self.believed = now;
                self.doubt = None;
                Ok(now)
            }
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut times = text.split_ascii_whitespace().map(|time| {
            let seconds = time.parse().ok()?;
            Timestamp::from_second(seconds).ok()
        });
        let mut next = || times.next().flatten();
        let (believed, since, seen) = (next()?, next()?, next()?);
        let doubt = (seen != believed).then_some(Run { since, seen });
        Some(Self { believed, doubt })
    }
}

/// Three times of the same length: the one believed last, since when the clock in doubt has run, and what it
/// showed last. Without a doubt all three are the same.
impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let believed = self.believed;
        let run = self.doubt.unwrap_or(Run {
            since: believed,
            seen: believed,
        });
        let [believed, since, seen] = [believed, run.since, run.seen].map(|time| time.as_second());
        writeln!(f, "{believed:+015} {since:+015} {seen:+015}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hour(hours: f64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + (hours * 3600.0) as i64).unwrap()
    }

    /// A calendar that believes hour 0.
    fn believing(path: &Path) -> Calendar {
        let calendar = Calendar::open(path);
        for half in 0..=48 {
            let _ = calendar.check(hour(-24.0 + f64::from(half) / 2.0));
        }
        assert_eq!(calendar.0.lock().state.believed, hour(0.0));
        calendar
    }

    /// The clock from hour to hour, looked at each half of one.
    fn run(calendar: &Calendar, from: f64, to: f64) -> bool {
        let mut now = from;
        while now < to {
            let _ = calendar.check(hour(now));
            now += 0.5;
        }
        calendar.check(hour(to)).is_ok()
    }

    #[test]
    fn a_clock_that_jumps_is_believed_after_a_day() {
        for restart in [false, true] {
            let root = tempfile::tempdir().unwrap();
            let path = root.path().join("clock");
            let mut calendar = believing(&path);
            for (name, from, to, believed) in [
                ("an hour later", 1.0, 1.0, true),
                ("a day later", 25.0, 25.0, true),
                ("400 days ahead", 9600.0, 9600.0, false),
                ("and running on", 9600.5, 9623.5, false),
                ("a day after the jump", 9624.0, 9624.0, true),
                ("back", 26.0, 26.0, false),
                ("running on", 26.5, 40.0, false),
                ("another jump while in doubt", 50.0, 50.0, false),
                ("a day after the first", 50.5, 60.0, false),
                ("a day after the other", 60.5, 74.0, true),
                ("ahead again", 500.0, 510.0, false),
                ("and set right", 75.0, 75.0, true),
            ] {
                assert_eq!(run(&calendar, from, to), believed, "{name} ({restart})");
                if restart {
                    calendar = Calendar::open(&path);
                }
            }
        }
    }

    /// The restart of a service whose clock is still wrong is how a jump gets believed by mistake.
    #[test]
    fn a_restart_ends_no_doubt() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("clock");
        assert!(believing(&path).check(hour(9600.0)).is_err());
        for hours in 0..20 {
            let calendar = Calendar::open(&path);
            assert!(calendar.check(hour(9600.0 + f64::from(hours))).is_err());
        }
    }

    #[test]
    fn what_is_not_known_is_in_doubt() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("clock");
        assert!(Calendar::open(&path).check(hour(0.0)).is_err());
        for damaged in ["", "nothing", "+00001700000000 +0000", "\0\0\0\0"] {
            std::fs::write(&path, damaged).unwrap();
            let calendar = Calendar::open(&path);
            assert!(calendar.check(hour(0.0)).is_err(), "{damaged:?}");
            assert!(calendar.check(hour(0.5)).is_err(), "{damaged:?}");
        }
    }

    #[test]
    fn a_time_that_cannot_be_kept_is_told_all_the_same() {
        let root = tempfile::tempdir().unwrap();
        let calendar = believing(&root.path().join("clock"));
        drop(root);
        assert_eq!(calendar.check(hour(1.0)), Ok(hour(1.0)));
    }

    #[test]
    fn stamps_do_not_go_back() {
        let root = tempfile::tempdir().unwrap();
        let calendar = believing(&root.path().join("clock"));
        let rtc_is_dead = Timestamp::UNIX_EPOCH;
        assert!(calendar.check(rtc_is_dead).is_err());
        assert_eq!(calendar.stamp(rtc_is_dead), hour(0.0));
        assert_eq!(calendar.stamp(hour(2.0)), hour(2.0));
    }
}
