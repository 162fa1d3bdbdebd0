//! `@odata.nextLink`: followed as it stands, and only on the host that is configured.

use url::Url;

use crate::graph::cloud::Base;

/// A link that may be followed: what stands after the base URL, verbatim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextLink(String);

/// Why a link is not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It is no absolute URL, or holds what a URL must not.
    #[error("the next-link {0:?} is no URL")]
    Syntax(String),
    /// Another scheme, host or port: the token must not go there.
    #[error("the next-link {0:?} leads away from the configured Graph host; it was not followed")]
    OtherHost(String),
    /// The same host, but not below the configured path.
    #[error("the next-link {0:?} leaves the configured Graph path; it was not followed")]
    OtherPath(String),
}

/// Longest link that is followed, in octets. Real ones have a few hundred.
const LINK_OCTETS: usize = 16 * 1024;

impl NextLink {
    /// Checks a link that Graph gave.
    ///
    /// # Errors
    ///
    /// [`LinkError`]; the page's items are good, but the collection is not complete.
    pub fn parse(base: &Base, text: &str) -> Result<Self, LinkError> {
        let shown = || text.chars().take(120).collect::<String>();
        let odd = |c: char| c.is_whitespace() || c.is_control() || c == '\\' || !c.is_ascii();
        if text.len() > LINK_OCTETS || text.chars().any(odd) {
            return Err(LinkError::Syntax(shown()));
        }
        let url = Url::parse(text).map_err(|_| LinkError::Syntax(shown()))?;
        let extra = !url.username().is_empty() || url.password().is_some();
        if extra || url.fragment().is_some() || !base.same_origin(&url) {
            return Err(LinkError::OtherHost(shown()));
        }
        // `url` has its dot segments removed: a link cannot climb out of the path.
        let below = format!("{}/", base.path());
        let after_scheme = text.split_once("://").map(|(_, rest)| rest);
        let raw = after_scheme
            .and_then(|rest| rest.find('/').and_then(|at| rest.get(at..)))
            .ok_or_else(|| LinkError::Syntax(shown()))?;
        if !url.path().starts_with(&below) || !raw.starts_with(&below) {
            return Err(LinkError::OtherPath(shown()));
        }
        let tail = raw.get(base.path().len()..).unwrap_or_default();
        Ok(Self(tail.to_owned()))
    }

    /// What stands after the base URL, beginning with a slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        let base = Base::parse("https://graph.example/v1.0").unwrap();
        for (name, text, tail) in [
            (
                "slash form",
                "https://graph.example/v1.0/users/u/messages?$skip=10",
                Some("/users/u/messages?$skip=10"),
            ),
            (
                "key form",
                "https://graph.example/v1.0/users('u%40x')/mailfolders('inbox')/messages?%24skip=10&a=b%2B",
                Some("/users('u%40x')/mailfolders('inbox')/messages?%24skip=10&a=b%2B"),
            ),
            (
                "default port",
                "https://graph.example:443/v1.0/users",
                Some("/users"),
            ),
            (
                "host in capitals",
                "https://GRAPH.example/v1.0/users",
                Some("/users"),
            ),
            ("another host", "https://evil.example/v1.0/users", None),
            (
                "host as user",
                "https://graph.example@evil.example/v1.0/users",
                None,
            ),
            ("a user", "https://a@graph.example/v1.0/users", None),
            ("another port", "https://graph.example:444/v1.0/users", None),
            ("no TLS", "http://graph.example/v1.0/users", None),
            ("another path", "https://graph.example/beta/users", None),
            (
                "a path that only begins so",
                "https://graph.example/v1.0x/users",
                None,
            ),
            ("climbing", "https://graph.example/v1.0/../beta/users", None),
            (
                "climbing, encoded",
                "https://graph.example/v1.0/%2e%2e/beta/users",
                None,
            ),
            (
                "backslash",
                "https://graph.example\\@evil.example/v1.0/users",
                None,
            ),
            (
                "line break",
                "https://graph.example/v1.0/users\r\nHost: evil",
                None,
            ),
            ("tab", "https://graph.exam\tple/v1.0/users", None),
            ("relative", "/v1.0/users", None),
            ("fragment", "https://graph.example/v1.0/users#a", None),
            ("the base alone", "https://graph.example/v1.0", None),
        ] {
            let link = NextLink::parse(&base, text);
            assert_eq!(
                link.as_ref().ok().map(NextLink::as_str),
                tail,
                "{name}: {link:?}"
            );
        }
    }
}
