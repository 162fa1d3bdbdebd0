//! The national clouds and their hosts (Graph documentation, "National cloud deployments").

use serde::{Deserialize, Serialize};
use url::Url;

/// Which Microsoft cloud a tenant lives in. Tokens of one are worth nothing in another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cloud {
    /// Worldwide, and Microsoft 365 GCC.
    #[default]
    Global,
    /// US Government L4.
    GccHigh,
    /// US Government L5.
    Dod,
    /// Operated by 21Vianet.
    China,
}

impl Cloud {
    /// Base of every Graph request, without a slash at its end.
    pub const fn graph_url(self) -> &'static str {
        match self {
            Self::Global => "https://graph.microsoft.com/v1.0",
            Self::GccHigh => "https://graph.microsoft.us/v1.0",
            Self::Dod => "https://dod-graph.microsoft.us/v1.0",
            Self::China => "https://microsoftgraph.chinacloudapi.cn/v1.0",
        }
    }

    /// Where tokens come from, without a slash at its end.
    pub const fn login_url(self) -> &'static str {
        match self {
            Self::Global => "https://login.microsoftonline.com",
            Self::GccHigh | Self::Dod => "https://login.microsoftonline.us",
            Self::China => "https://login.partner.microsoftonline.cn",
        }
    }
}

/// Why a URL is no base for Graph or for tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BaseError {
    /// It cannot be read.
    #[error("{text:?} is no URL: {why}")]
    Syntax {
        /// What was given.
        text: String,
        /// What the URL parser says.
        why: url::ParseError,
    },
    /// Neither https, nor http on loopback.
    #[error("{0:?} must begin with https:// (http:// is for loopback addresses alone)")]
    Scheme(String),
    /// It names a user, a query or a fragment.
    #[error("{0:?} must be a scheme, a host and a path, nothing else")]
    Extra(String),
}

/// A checked base URL: https anywhere, http on loopback alone, so that a token never travels in clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    url: Url,
    path: String,
}

impl Base {
    /// Reads a base URL; slashes at its end do not matter.
    ///
    /// # Errors
    ///
    /// [`BaseError`]: the administrator must change the configuration.
    pub fn parse(text: &str) -> Result<Self, BaseError> {
        let trimmed = text.trim_end_matches('/');
        let url = Url::parse(trimmed).map_err(|why| BaseError::Syntax {
            text: text.into(),
            why,
        })?;
        let plain = url.scheme() == "http" && is_loopback(&url);
        if url.scheme() != "https" && !plain {
            return Err(BaseError::Scheme(text.into()));
        }
        let extra = !url.username().is_empty() || url.password().is_some();
        if extra || url.query().is_some() || url.fragment().is_some() {
            return Err(BaseError::Extra(text.into()));
        }
        let path = url.path().trim_end_matches('/').to_owned();
        Ok(Self { url, path })
    }

    /// The URL of what follows the base; `tail` begins with a slash and is encoded already.
    pub fn join(&self, tail: &str) -> String {
        format!("{}{tail}", self.url.as_str().trim_end_matches('/'))
    }

    /// Scope of a token for this Graph: its scheme and host, and `/.default`.
    pub fn scope(&self) -> String {
        format!("{}/.default", self.url.origin().ascii_serialization())
    }

    /// The path below which every request stands, without a slash at its end.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The host is this machine.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.url)
    }

    /// Scheme, host and port are equal.
    pub fn same_origin(&self, other: &Url) -> bool {
        self.url.origin() == other.origin()
    }
}

/// The host is an address of this machine.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases() {
        for (name, text, good) in [
            ("Graph", "https://graph.microsoft.com/v1.0", true),
            ("slash at the end", "https://localhost:8443/v1.0/", true),
            ("http on loopback", "http://127.0.0.1:80/v1.0", true),
            ("http on IPv6 loopback", "http://[::1]:80", true),
            ("http elsewhere", "http://graph.microsoft.com/v1.0", false),
            (
                "http on a name that only looks so",
                "http://localhost.example/",
                false,
            ),
            ("another scheme", "ftp://localhost/", false),
            ("a user", "https://a:b@localhost/", false),
            ("a query", "https://localhost/?a", false),
            ("no URL", "graph", false),
        ] {
            assert_eq!(Base::parse(text).is_ok(), good, "{name}");
        }
    }

    #[test]
    fn parts() {
        let base = Base::parse("https://Host:8443/v1.0//").unwrap();
        assert_eq!(base.join("/users"), "https://host:8443/v1.0/users");
        assert_eq!(base.path(), "/v1.0");
        assert_eq!(base.scope(), "https://host:8443/.default");
        let bare = Base::parse("https://host/").unwrap();
        assert_eq!(
            (bare.join("/t"), bare.path()),
            ("https://host/t".into(), "")
        );
    }

    #[test]
    fn every_cloud_has_good_hosts() {
        for cloud in [Cloud::Global, Cloud::GccHigh, Cloud::Dod, Cloud::China] {
            assert!(Base::parse(cloud.graph_url()).is_ok(), "{cloud:?}");
            assert!(Base::parse(cloud.login_url()).is_ok(), "{cloud:?}");
        }
    }
}
