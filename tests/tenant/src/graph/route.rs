//! What a request is about, read from its target.

use crate::odata::QueryError;
use crate::odata::query::{Options, Segment, segments};
use crate::settings::Scope;

/// A target below the version, taken apart.
#[derive(Debug)]
pub(crate) struct Route {
    /// Names at even positions in lower case, keys as they are.
    pub(crate) path: Vec<String>,
    /// The query.
    pub(crate) options: Options,
    /// Mailbox or directory.
    pub(crate) scope: Scope,
}

impl Route {
    /// Reads `/users/x/messages?$top=5`.
    ///
    /// # Errors
    ///
    /// What [`segments`] and [`Options::parse`] refuse.
    pub(crate) fn parse(target: &str) -> Result<Self, QueryError> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut flat = Vec::new();
        for Segment { name, key } in segments(path)? {
            flat.push(name);
            flat.extend(key);
        }
        for name in flat.iter_mut().step_by(2) {
            *name = name.to_lowercase();
        }
        let in_mailbox = flat.len() > 2 && flat[0] == "users";
        let scope = if in_mailbox {
            Scope::Outlook
        } else {
            Scope::Directory
        };
        Ok(Self {
            path: flat,
            options: Options::parse(query)?,
            scope,
        })
    }

    /// The key of the user whose mailbox it is about.
    pub(crate) fn user_key(&self) -> Option<&str> {
        (self.scope == Scope::Outlook)
            .then(|| self.path.get(1).map(String::as_str))
            .flatten()
    }
}
