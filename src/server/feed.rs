//! The state of each tenant's feed: when its last report came, how many come, and whether it has
//! fallen silent. Exchange Online gives up after about a day, so silence is an alert.
//!
//! What must outlive a restart (the last report, the connector validation) is in one small file,
//! written beside and renamed, so that it is always whole. Losing its last minute loses nothing but
//! the freshness of a status line.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use metrics::gauge;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::mail::TenantName;
use crate::telemetry::metric;

/// A feed without a report for so long is an alert, and again after each such time.
pub const SILENCE: SignedDuration = SignedDuration::from_hours(1);

/// Name of the file below the store's directory.
const FILE: &str = "feed.json";

/// The window of the rate, in seconds.
const WINDOW_SECONDS: i64 = 60;

/// The feeds of all tenants. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Feed(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: PathBuf,
    started: Timestamp,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tenants: BTreeMap<TenantName, Tenant>,
    unsaved: bool,
}

/// What is known of one tenant's feed.
#[derive(Debug, Default)]
struct Tenant {
    kept: Kept,
    /// Reports in each second of the window that had any, oldest first.
    seconds: VecDeque<(i64, u64)>,
    /// When its silence was last told.
    told: Option<Timestamp>,
}

/// What outlives a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    last_report: Option<Timestamp>,
    connector_validated_at: Option<Timestamp>,
}

/// One tenant's feed, for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FeedStatus {
    /// Whose feed.
    pub tenant: TenantName,
    /// When the last report was acknowledged.
    pub last_report: Option<Timestamp>,
    /// Reports a second, over the last minute.
    pub rate_1m: f64,
    /// When Exchange Online last validated the connector with a mail of its own.
    pub connector_validated_at: Option<Timestamp>,
}

impl Feed {
    /// Reads what is known from the store's directory. A file that cannot be read is begun anew.
    pub fn open(directory: &Path, now: Timestamp) -> Self {
        let file = directory.join(FILE);
        let kept = read(&file).unwrap_or_else(|error| {
            warn!(file = %file.display(), error = ?error.to_string(), "the feed's state cannot be read; it begins anew");
            BTreeMap::new()
        });
        let tenants = kept.into_iter().map(|(name, kept)| {
            let tenant = Tenant {
                kept,
                ..Tenant::default()
            };
            (name, tenant)
        });
        Self(Arc::new(Inner {
            file,
            started: now,
            state: Mutex::new(State {
                tenants: tenants.collect(),
                unsaved: false,
            }),
        }))
    }

    /// A report of this tenant was acknowledged.
    pub fn report(&self, name: &TenantName, now: Timestamp) {
        let mut state = self.lock();
        state.unsaved = true;
        let tenant = state.tenant(name);
        tenant.kept.last_report = Some(now);
        tenant.told = None;
        let second = now.as_second();
        match tenant.seconds.back_mut() {
            Some((last, count)) if *last == second => *count += 1,
            _ => tenant.seconds.push_back((second, 1)),
        }
        tenant.forget(second);
    }

    /// Exchange Online has validated the tenant's connector. To be followed by [`save`](Self::save).
    pub fn connector_validated(&self, name: &TenantName, now: Timestamp) {
        let mut state = self.lock();
        state.unsaved = true;
        state.tenant(name).kept.connector_validated_at = Some(now);
    }

    /// The feed of this tenant.
    pub fn status(&self, name: &TenantName, now: Timestamp) -> FeedStatus {
        let mut state = self.lock();
        let tenant = state.tenant(name);
        tenant.forget(now.as_second());
        let reports: u64 = tenant.seconds.iter().map(|(_, count)| count).sum();
        #[expect(
            clippy::cast_precision_loss,
            reason = "far fewer than 2^52 reports a minute"
        )]
        FeedStatus {
            tenant: name.clone(),
            last_report: tenant.kept.last_report,
            rate_1m: reports as f64 / WINDOW_SECONDS as f64,
            connector_validated_at: tenant.kept.connector_validated_at,
        }
    }

    /// Publishes how long each feed is silent, and tells in the log of those that are silent too long.
    /// Returns the tenants that it told of.
    pub fn watch<'a>(
        &self,
        tenants: impl IntoIterator<Item = &'a TenantName>,
        now: Timestamp,
    ) -> Vec<TenantName> {
        let mut told = Vec::new();
        let mut state = self.lock();
        for name in tenants {
            let tenant = state.tenant(name);
            // A clock that was set back is no silence.
            let since = tenant
                .kept
                .last_report
                .map_or(self.0.started, |last| last.min(now));
            let silent = now.duration_since(since);
            gauge!(metric::SECONDS_SINCE_LAST_REPORT, "tenant" => name.as_str().to_owned())
                .set(silent.as_secs_f64());
            let due = tenant
                .told
                .is_none_or(|told| now.duration_since(told) >= SILENCE);
            if silent >= SILENCE && due {
                tenant.told = Some(now);
                told.push(name.clone());
                warn!(
                    tenant = name.as_str(),
                    silent_s = silent.as_secs(),
                    "no journal report for {} minutes; Exchange Online keeps them for a day only: \
                     are the journal rule and the connector on, and can it reach this host?",
                    silent.as_mins()
                );
            }
        }
        told
    }

    /// Makes durable what is not yet. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// What the system said; the next call tries again.
    pub fn save(&self) -> io::Result<()> {
        let kept: BTreeMap<TenantName, Kept> = {
            let mut state = self.lock();
            if !state.unsaved {
                return Ok(());
            }
            state.unsaved = false;
            let tenants = state.tenants.iter();
            tenants
                .map(|(name, tenant)| (name.clone(), tenant.kept.clone()))
                .collect()
        };
        let written = write(&self.0.file, &kept);
        if written.is_err() {
            self.lock().unsaved = true;
        }
        written
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held, and if it did, what it guards would still be right.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tenant(&mut self, name: &TenantName) -> &mut Tenant {
        self.tenants.entry(name.clone()).or_default()
    }
}

impl Tenant {
    /// Drops the seconds that are out of the window.
    fn forget(&mut self, now: i64) {
        while let Some((second, _)) = self.seconds.front()
            && (*second <= now - WINDOW_SECONDS || *second > now)
        {
            self.seconds.pop_front();
        }
    }
}

/// The file's content; nothing if there is none.
fn read(file: &Path) -> io::Result<BTreeMap<TenantName, Kept>> {
    match fs::read(file) {
        Ok(octets) => Ok(serde_json::from_slice(&octets)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

/// Replaces the file.
fn write(file: &Path, kept: &BTreeMap<TenantName, Kept>) -> io::Result<()> {
    let beside = file.with_extension("new");
    let mut new = fs::File::create(&beside)?;
    new.write_all(&serde_json::to_vec(kept)?)?;
    new.sync_all()?;
    fs::rename(&beside, file)?;
    if let Some(directory) = file.parent() {
        fs::File::open(directory)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn the_rate_is_of_the_last_minute() {
        let directory = tempfile::tempdir().unwrap();
        let feed = Feed::open(directory.path(), at(0));
        let name = TenantName::new("contoso");
        for second in [0, 30, 30, 59] {
            feed.report(&name, at(second));
        }
        for (name_of_case, now, reports) in [
            ("all of them", 59, 4.0),
            ("the first is out", 60, 3.0),
            ("the middle ones too", 90, 1.0),
            ("none", 200, 0.0),
        ] {
            assert!(
                (feed.status(&name, at(now)).rate_1m - reports / 60.0).abs() < 1e-9,
                "{name_of_case}"
            );
        }
    }

    #[test]
    fn silence_is_told_once_an_hour() {
        let directory = tempfile::tempdir().unwrap();
        let feed = Feed::open(directory.path(), at(0));
        let name = TenantName::new("contoso");
        let told = |second| feed.watch([&name], at(second)).len();
        assert_eq!(told(3599), 0, "not yet an hour");
        assert_eq!(told(3600), 1, "a feed that never spoke");
        assert_eq!(told(3610), 0, "told before");
        assert_eq!(told(7200), 1, "again after an hour");
        feed.report(&name, at(7300));
        assert_eq!(told(7310), 0, "it speaks");
        assert_eq!(told(7300 + 3600), 1, "silent again");
    }

    #[test]
    fn what_must_outlive_a_restart_does() {
        let directory = tempfile::tempdir().unwrap();
        let name = TenantName::new("contoso");
        let feed = Feed::open(directory.path(), at(0));
        feed.report(&name, at(5));
        feed.connector_validated(&name, at(7));
        feed.save().unwrap();
        let status = Feed::open(directory.path(), at(100)).status(&name, at(100));
        assert_eq!(status.last_report, Some(at(5)));
        assert_eq!(status.connector_validated_at, Some(at(7)));
        fs::write(directory.path().join(FILE), "{").unwrap();
        let status = Feed::open(directory.path(), at(100)).status(&name, at(100));
        assert_eq!(status.last_report, None, "a broken file is begun anew");
    }
}
