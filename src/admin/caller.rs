//! Who asks: user, process and login of the socket's peer, and what they may do.
//!
//! Authority is by Unix groups (`admin.viewers`, `admin.operators`, `admin.approvers`). Root and the
//! service's own user may do everything. The login uid survives sudo and su, so the audit log can
//! name the person behind a shared account; it may be unset.

use std::fs;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use rustix::net::sockopt::socket_peercred;
use tokio::net::UnixListener;

use crate::config::Admin;
use crate::proc::proc_root;

/// What is known of a peer of the socket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// Effective user when it connected; `None` if the system did not say.
    pub uid: Option<u32>,
    /// Its process.
    pub pid: Option<u32>,
    /// The user that logged in, whatever became of it since (`/proc/PID/loginuid`).
    pub login_uid: Option<u32>,
    /// Its groups; `None` if the system hides them (`ProtectProc=`, another user namespace).
    groups: Option<Vec<u32>>,
}

/// What a caller may do; each includes the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Authority {
    /// Nothing but to hear that the service is alive.
    None,
    /// Look.
    View,
    /// Look and act.
    Operate,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        match socket_peercred(stream.io()) {
            Ok(credentials) => Self::of(
                credentials.uid.as_raw(),
                credentials.gid.as_raw(),
                u32::try_from(credentials.pid.as_raw_nonzero().get()).ok(),
            ),
            Err(_) => Self::default(),
        }
    }
}

impl Peer {
    fn of(uid: u32, gid: u32, pid: Option<u32>) -> Self {
        let status =
            pid.and_then(|pid| fs::read_to_string(proc_root().join(format!("{pid}/status"))).ok());
        let groups = status.and_then(|status| groups_of(&status, uid));
        let login = pid
            .and_then(|pid| fs::read_to_string(proc_root().join(format!("{pid}/loginuid"))).ok());
        Self {
            uid: Some(uid),
            pid,
            login_uid: login
                .and_then(|login| login.trim().parse().ok())
                .filter(|login| *login != u32::MAX),
            groups: groups.map(|mut groups| {
                groups.push(gid);
                groups
            }),
        }
    }

    /// What this peer may do, with the configuration of now. `door` is the group that the socket
    /// belongs to: of a stranger whose groups are hidden it is known that the kernel let it in, and
    /// the socket's mode lets in nobody but the service's user, root and that group.
    pub fn authority(&self, admin: &Admin, door: Option<u32>) -> Authority {
        let own = rustix::process::geteuid().as_raw();
        match self.uid {
            None => Authority::None,
            Some(uid) if uid == 0 || uid == own => Authority::Operate,
            Some(_) if self.is_in(&admin.operators, door) => Authority::Operate,
            Some(_) if self.is_in(&admin.viewers, door) || self.is_in(&admin.approvers, door) => {
                Authority::View
            }
            Some(_) => Authority::None,
        }
    }

    /// The name that is recorded: of the login, else of the user.
    pub fn who(&self) -> String {
        match self.login_uid.or(self.uid) {
            Some(uid) => user_name(uid).unwrap_or_else(|| format!("uid {uid}")),
            None => "unknown".into(),
        }
    }

    fn is_in(&self, names: &[String], door: Option<u32>) -> bool {
        let mut ids = names.iter().filter_map(|name| group_id(name));
        match &self.groups {
            Some(groups) => ids.any(|id| groups.contains(&id)),
            None => ids.any(|id| door == Some(id)),
        }
    }
}

/// The supplementary groups that `/proc/PID/status` shows; `None` if the process is not (or no longer
/// only) of that user: its number may have been given to another process since it connected.
fn groups_of(status: &str, uid: u32) -> Option<Vec<u32>> {
    let numbers = |name: &str| -> Vec<u32> {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .into_iter()
            .flat_map(str::split_whitespace)
            .filter_map(|number| number.parse().ok())
            .collect()
    };
    let users = numbers("Uid:");
    let only = users.len() == 4 && users.iter().all(|user| *user == uid);
    only.then(|| numbers("Groups:"))
}

/// The id of a group in `/etc/group`.
pub(super) fn group_id(name: &str) -> Option<u32> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// The name of a user in `/etc/passwd`.
pub(crate) fn user_name(uid: u32) -> Option<String> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tclawback\nUid:\t1000\t1000\t1000\t1000\nGid:\t100\t100\t100\t100\nGroups:\t27 100 4711 \n";

    #[test]
    fn groups_are_of_the_process_that_connected() {
        assert_eq!(groups_of(STATUS, 1000), Some(vec![27, 100, 4711]));
        assert_eq!(
            groups_of(STATUS, 1001),
            None,
            "the process is another's now"
        );
        let risen = STATUS.replace("Uid:\t1000\t1000", "Uid:\t1000\t0");
        assert_eq!(
            groups_of(&risen, 1000),
            None,
            "it became a set-user-ID program"
        );
        assert_eq!(groups_of("", 1000), None);
    }

    #[test]
    fn authority_comes_from_groups() {
        let root_group = ["root".to_owned()];
        let nobody = |groups: Option<Vec<u32>>| Peer {
            uid: Some(u32::MAX - 7),
            groups,
            ..Peer::default()
        };
        let admin = |viewers: &[String], operators: &[String]| Admin {
            viewers: viewers.to_vec(),
            operators: operators.to_vec(),
            ..Admin::default()
        };
        let (root, none) = (&root_group[..], &[][..]);
        for (name, peer, admin, door, expected) in [
            (
                "root",
                Peer {
                    uid: Some(0),
                    ..Peer::default()
                },
                admin(none, none),
                None,
                Authority::Operate,
            ),
            (
                "no group",
                nobody(Some(vec![])),
                admin(root, root),
                Some(0),
                Authority::None,
            ),
            (
                "viewer",
                nobody(Some(vec![0])),
                admin(root, none),
                None,
                Authority::View,
            ),
            (
                "operator",
                nobody(Some(vec![0])),
                admin(none, root),
                None,
                Authority::Operate,
            ),
            (
                "unknown group",
                nobody(Some(vec![0])),
                admin(&["no-such-group".into()], none),
                None,
                Authority::None,
            ),
            (
                "hidden, through the door",
                nobody(None),
                admin(root, root),
                Some(0),
                Authority::Operate,
            ),
            (
                "hidden, the door is viewers'",
                nobody(None),
                admin(root, none),
                Some(0),
                Authority::View,
            ),
            (
                "hidden, another door",
                nobody(None),
                admin(root, root),
                Some(7),
                Authority::None,
            ),
            (
                "unknown peer",
                Peer::default(),
                admin(root, root),
                Some(0),
                Authority::None,
            ),
        ] {
            assert_eq!(peer.authority(&admin, door), expected, "{name}");
        }
    }
}
