//! Whose the data is. The service runs as a user of its own; what root does for it must neither leave
//! files that the service cannot open, nor judge by what root alone can read.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::Failure;
use crate::admin::user_name;

/// The user that a data directory belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Owner {
    /// The owner of `path`; `None` if it does not exist or belongs to whoever asks.
    pub(super) fn other(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        let (uid, gid) = (metadata.uid(), metadata.gid());
        (uid != geteuid().as_raw()).then_some(Self { uid, gid })
    }

    /// Like [`other`](Self::other), if root asks.
    pub(super) fn under_root(path: &Path) -> Option<Self> {
        Self::other(path).filter(|_| geteuid().is_root())
    }

    /// As `sudo -u` takes it.
    pub(super) fn name(self) -> String {
        user_name(self.uid).unwrap_or_else(|| format!("#{}", self.uid))
    }

    /// Makes this thread, the only one, that user for good, with all groups that `/etc/group` gives it.
    pub(super) fn assume(self) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let known = fs::read_to_string("/etc/group").unwrap_or_default();
        let mut groups = groups_of(&known, &self.name());
        groups.push(gid);
        set_thread_groups(&groups)?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        Ok(())
    }
}

/// Refuses a command that writes into the data directory as somebody else than its owner.
pub(super) fn must_own(path: &Path, command: &str) -> Result<(), Failure> {
    let Some(owner) = Owner::other(path) else {
        return Ok(());
    };
    let name = owner.name();
    Err(Failure::usage(format!(
        "{} belongs to user {name}, who could not open what another user writes there; \
         run: sudo -u {name} {command}",
        path.display()
    )))
}

/// The groups that name a user as a member.
fn groups_of(known: &str, user: &str) -> Vec<Gid> {
    let member = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, gid, members] = fields[..] else {
            return None;
        };
        let named = members.split(',').any(|member| member == user);
        named.then(|| gid.parse().ok().map(Gid::from_raw)).flatten()
    };
    known.lines().filter_map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_those_that_name_the_user() {
        let known = "root:x:0:\nssl-cert:x:109:other,clawback\nclawbacks:x:7:clawback2\nbroken\n";
        assert_eq!(groups_of(known, "clawback"), [Gid::from_raw(109)]);
    }
}
