//! From the host of a URL to the domain that somebody registered (public suffix list), with Safe Links undone.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use memchr::{memchr, memrchr};

use super::charset::utf8_or_windows_1252;
use super::word::percent_decoded;

/// Wrappers inside wrappers that are undone: Safe Links wraps what a forwarded message wrapped before.
const WRAPPERS: usize = 8;
/// Octets of wrapping URLs that are undone for one message; further ones stay as they are.
const WRAPPED_OCTETS: usize = 2 << 20;
/// Hosts that are remembered so that the next URL with the same host costs nothing.
const HOSTS: usize = 4096;
/// Longest host, in octets as written (percent-encoded UTF-8 takes nine for one character).
const HOST_OCTETS: usize = 1024;

/// The registrable domains of the URLs seen, each once, in order, up to a bound.
#[derive(Debug)]
pub(super) struct Domains {
    domains: Vec<String>,
    known: HashSet<String>,
    hosts: HashSet<u64>,
    keys: RandomState,
    limit: usize,
    over: bool,
    wrapped_octets: usize,
}

impl Domains {
    /// No domains yet, and never more than `limit`.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            domains: Vec::new(),
            known: HashSet::new(),
            hosts: HashSet::new(),
            keys: RandomState::new(),
            limit,
            over: false,
            wrapped_octets: 0,
        }
    }

    /// A URL without its scheme, as far as it counts; its authority is what it begins with.
    pub(super) fn add(&mut self, authority: &[u8], url: &[u8]) {
        let host = host(authority);
        if !wrapper(host) {
            return self.add_host(host);
        }
        if self.wrapped_octets + url.len() > WRAPPED_OCTETS {
            self.over = true;
            return self.add_host(host);
        }
        self.wrapped_octets += url.len();
        let mut inner = url.to_vec();
        for _ in 0..WRAPPERS {
            match wrapped(&inner) {
                Some(url) => inner = url,
                None => break,
            }
        }
        self.add_host(host_of(&inner));
    }

    /// Whether the query of a URL with this authority holds the URL that it leads to, and is to be read.
    pub(super) fn is_wrapper(&self, authority: &[u8]) -> bool {
        self.wrapped_octets < WRAPPED_OCTETS && wrapper(host(authority))
    }

    /// The domains in the order in which they were found; whether the bound was reached.
    pub(super) fn into_parts(self) -> (Vec<String>, bool) {
        (self.domains, self.over)
    }

    /// Octets of memory held, about.
    pub(super) fn memory(&self) -> usize {
        self.domains.len() * 96 + self.hosts.capacity() * 9
    }

    fn add_host(&mut self, host: &[u8]) {
        if host.is_empty() || host.len() > HOST_OCTETS {
            return;
        }
        let hash = self.keys.hash_one(host);
        if self.hosts.contains(&hash) {
            return;
        }
        if self.hosts.len() < HOSTS {
            self.hosts.insert(hash);
        }
        let Some(domain) = registrable(host) else {
            return;
        };
        if self.known.contains(&domain) {
            return;
        }
        if self.domains.len() < self.limit {
            self.known.insert(domain.clone());
            self.domains.push(domain);
        } else {
            self.over = true;
        }
    }
}

/// The host of a URL without its scheme.
fn host_of(url: &[u8]) -> &[u8] {
    let end = url.iter().position(|&octet| ends_authority(octet));
    host(url.get(..end.unwrap_or(url.len())).unwrap_or(url))
}

/// The host of an authority as written: no userinfo, no port.
fn host(authority: &[u8]) -> &[u8] {
    let host = match memrchr(b'@', authority) {
        Some(at) => authority.get(at + 1..).unwrap_or_default(),
        None => authority,
    };
    if host.first() == Some(&b'[') {
        let end = memchr(b']', host).map_or(0, |end| end + 1);
        return host.get(..end).unwrap_or_default();
    }
    let end = host.iter().position(|&octet| !in_host(octet));
    host.get(..end.unwrap_or(host.len())).unwrap_or(host)
}

/// Whether the authority of a URL ends before this octet. Browsers read a backslash as a slash.
pub(super) const fn ends_authority(octet: u8) -> bool {
    matches!(octet, b'/' | b'?' | b'#' | b'\\')
}

const fn in_host(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'%' | 0x80..)
}

/// The hosts of Safe Links end so, in the worldwide and in the national clouds.
const SAFE_LINKS: [&[u8]; 4] = [
    b"safelinks.protection.outlook.com",
    b"safelinks.protection.office365.us",
    b"safelinks.protection.partner.outlook.cn",
    b"safelinks.protection.apps.mil",
];

fn wrapper(host: &[u8]) -> bool {
    SAFE_LINKS.iter().any(|name| {
        let start = host.len().checked_sub(name.len());
        start
            .and_then(|start| host.split_at_checked(start))
            .is_some_and(|(before, end)| {
                end.eq_ignore_ascii_case(name) && matches!(before.last(), None | Some(b'.'))
            })
    })
}

/// What a Safe Links URL leads to, without its scheme.
fn wrapped(url: &[u8]) -> Option<Vec<u8>> {
    if !wrapper(host_of(url)) {
        return None;
    }
    let query = url.get(memchr(b'?', url)? + 1..)?;
    let query = query.split(|&octet| octet == b'#').next()?;
    let value = query.split(|&octet| octet == b'&').find_map(|pair| {
        // HTML that was escaped twice leaves "amp;" before the name.
        let pair = pair.strip_prefix(b"amp;").unwrap_or(pair);
        let (name, value) = pair.split_at_checked(4)?;
        name.eq_ignore_ascii_case(b"url=").then_some(value)
    })?;
    let inner = percent_decoded(value);
    let (_, rest) = after_scheme(&inner)?;
    Some(rest.to_vec())
}

/// Splits `https://rest`, with any number of slashes of either kind, as browsers read it.
fn after_scheme(url: &[u8]) -> Option<(&[u8], &[u8])> {
    let (scheme, rest) = url.split_at_checked(memchr(b':', url)?)?;
    let rest = rest.get(1..)?;
    let slashes = rest
        .iter()
        .take_while(|octet| b"/\\".contains(octet))
        .count();
    Some((scheme, rest.get(slashes..)?))
}

/// The registrable domain of a host name, as it is indexed: in A-labels, lower case; `None` if no
/// URL could have such a host.
pub fn registrable_domain(host: &str) -> Option<String> {
    registered(host.trim_end_matches('.'))
}

/// The registrable domain of a host as written in a URL; an IP address as it is (in its usual form).
fn registrable(host: &[u8]) -> Option<String> {
    let decoded = percent_decoded(host);
    let text = utf8_or_windows_1252(&decoded);
    let text = text.trim_end_matches('.');
    if let Some(domain) = registered(text) {
        return Some(domain);
    }
    // In languages without blanks a URL may run into the text behind it.
    let ascii = text
        .find(|c: char| !c.is_ascii())
        .and_then(|end| text.get(..end))?;
    registered(ascii.trim_end_matches('.'))
}

fn registered(text: &str) -> Option<String> {
    let plain = !text.is_empty()
        && text
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || b"-._".contains(&octet));
    let numeric = text
        .rsplit('.')
        .next()
        .is_some_and(|last| last.starts_with(|c: char| c.is_ascii_digit()));
    let host = if plain && !numeric && !text.contains("xn--") && !text.contains("XN--") {
        text.to_ascii_lowercase()
    } else {
        match url::Host::parse(text).ok()? {
            url::Host::Domain(domain) => domain,
            address => return Some(address.to_string()),
        }
    };
    let host = host.trim_end_matches('.');
    if !host.contains('.') || host.split('.').any(str::is_empty) {
        return None;
    }
    if !host.contains("xn--") {
        return listed(host, host);
    }
    // The list has its own characters, not A-labels.
    let (unicode, errors) = idna::domain_to_unicode(host);
    listed(host, if errors.is_ok() { &unicode } else { host })
}

/// As many labels of `host` as the registrable domain of `spelled` (the same host in the list's
/// spelling) has. A host that is a public suffix itself stays; one under no known suffix that would
/// end in letters of another script is no host.
fn listed(host: &str, spelled: &str) -> Option<String> {
    let labels = match psl::domain_str(spelled) {
        Some(domain) => domain.split('.').count(),
        None => return Some(host.to_owned()),
    };
    let known = psl::suffix(spelled.as_bytes()).is_some_and(|suffix| suffix.is_known());
    if !known
        && host
            .rsplit('.')
            .next()
            .is_some_and(|last| last.starts_with("xn--"))
    {
        return None;
    }
    let start = host
        .rmatch_indices('.')
        .nth(labels - 1)
        .map_or(0, |(dot, _)| dot + 1);
    host.get(start..).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(domains: &mut Domains, url: &str) {
        let end = url.find(['/', '?', '#', '\\']).unwrap_or(url.len());
        domains.add(&url.as_bytes()[..end], url.as_bytes());
    }

    #[test]
    fn domains() {
        for (url, expected) in [
            ("www.example.com/a?b#c", "example.com"),
            ("WWW.Example.COM", "example.com"),
            ("a.b.example.co.uk.:8080/x", "example.co.uk"),
            ("evil.github.io/", "evil.github.io"),
            ("github.io", "github.io"),
            ("user:pass@evil.example:1/", "evil.example"),
            ("paypal.com@evil.example/", "evil.example"),
            ("evil.example\\@paypal.com/", "evil.example"),
            ("ev%69l.example", "evil.example"),
            ("bücher.example.de/", "example.de"),
            ("www.bücher.de", "xn--bcher-kva.de"),
            ("B%C3%BCcher.de", "xn--bcher-kva.de"),
            ("www.xn--bcher-kva.de", "xn--bcher-kva.de"),
            ("пример.рф/", "xn--e1afmkfd.xn--p1ai"),
            ("a.食狮.公司.cn", "xn--85x722f.xn--55qx5d.cn"),
            ("example。com", "example.com"),
            ("example.com。見て", "example.com"),
            ("example.com查看", "example.com"),
            ("192.0.2.7:80/a", "192.0.2.7"),
            ("0xC0.0.2.7", "192.0.2.7"),
            ("3221225991", "192.0.2.7"),
            ("[2001:DB8::1]:443/", "[2001:db8::1]"),
            ("a_b.example.com", "example.com"),
            ("example.com,", "example.com"),
            ("example.com).", "example.com"),
            ("localhost/", ""),
            ("", ""),
            ("...", ""),
            ("a..b.com", ""),
            (
                "eur01.safelinks.protection.outlook.com/?url=https%3A%2F%2Fwww.evil.example%2Fa%3Fb%3Dc&amp;data=05",
                "evil.example",
            ),
            (
                "NAM12.SafeLinks.Protection.Outlook.COM/ap/t-59584e83/?data=1&URL=http%3A%2F%2Feur01.safelinks.protection.outlook.com%2F%3Furl%3Dhttps%253A%252F%252Fevil.example%252F%26data%3Dx",
                "evil.example",
            ),
            (
                "eur01.safelinks.protection.outlook.com/?data=1",
                "outlook.com",
            ),
            (
                "safelinks.protection.outlook.com.evil.example/?url=https://a.b",
                "evil.example",
            ),
        ] {
            let mut domains = Domains::new(10);
            add(&mut domains, url);
            assert_eq!(domains.into_parts().0.join(" "), expected, "{url}");
        }
    }

    #[test]
    fn each_once_and_bounded() {
        let mut domains = Domains::new(2);
        for url in [
            "a.example/1",
            "A.example/2",
            "b.a.example",
            "b.example",
            "c.example",
        ] {
            add(&mut domains, url);
        }
        let expected = vec!["a.example".to_owned(), "b.example".to_owned()];
        assert_eq!(domains.into_parts(), (expected, true));
    }
}
