//! The values that people write: sizes, durations, peers, lists of choices.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

/// What is wrong with a value, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    /// What was seen.
    pub(super) what: String,
    /// What to write instead.
    pub(super) mend: String,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            mend: mend.into(),
        }
    }
}

/// A number of octets, written as `200 MiB`: a whole number and a unit (`B`, `KiB`, `MiB`, `GiB`, `TiB`, or `kB`, `MB`, `GB`, `TB`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

/// Units of a [`Size`] with their octets, the largest first.
const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

impl Size {
    /// That many mebibytes.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// That many octets.
    pub const fn from_octets(count: u64) -> Self {
        Self(count)
    }

    /// Octets.
    pub const fn octets(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (number, unit) = number_and_unit(text)?;
        let unit = if unit.is_empty() { "B" } else { unit };
        let (_, octets) = SIZES
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
            .ok_or(())?;
        number.checked_mul(*octets).map(Self).ok_or(())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, octets) = SIZES
            .iter()
            .find(|(_, octets)| self.0 >= *octets && self.0.is_multiple_of(*octets))
            .unwrap_or(&("B", 1));
        write!(f, "{} {name}", self.0 / octets)
    }
}

/// A duration as people write it: `30 s`, `5 min`, `24 h`, `90 days`, `2 years` (of 365 days).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

/// Units of a [`Span`] with their milliseconds, the largest first; the first name of a unit is the one printed.
const SPANS: [(&[&str], u64); 7] = [
    (&["years", "year", "y"], 365 * 86_400_000),
    (&["weeks", "week", "w"], 7 * 86_400_000),
    (&["days", "day", "d"], 86_400_000),
    (&["h", "hour", "hours"], 3_600_000),
    (&["min", "minute", "minutes", "m"], 60_000),
    (&["s", "sec", "second", "seconds"], 1_000),
    (&["ms"], 1),
];

impl FromStr for Span {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (number, unit) = number_and_unit(text)?;
        let (_, milliseconds) = SPANS
            .iter()
            .find(|(names, _)| names.contains(&unit))
            .ok_or(())?;
        let total = number.checked_mul(*milliseconds).ok_or(())?;
        Ok(Self(Duration::from_millis(total)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let (name, milliseconds) = SPANS
            .iter()
            .find(|(_, unit)| total >= *unit && total.is_multiple_of(*unit))
            .map_or(("s", 1_000), |(names, unit)| (names[0], *unit));
        write!(f, "{} {name}", total / milliseconds)
    }
}

/// A whole number, then a unit that may be empty, blanks allowed between.
fn number_and_unit(text: &str) -> Result<(u64, &str), ()> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '_')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number = number.replace('_', "").parse().map_err(|_| ())?;
    Ok((number, unit.trim()))
}

/// Who may hand over reports of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Any address of the network.
    Network(IpNet),
    /// Any address that Exchange Online sends from: the dated list that is shipped.
    ExchangeOnline,
    /// Whoever presents a verified client certificate with this DNS name.
    Certificate(String),
}

/// The addresses that Exchange Online sends mail from, one network a line.
const EXCHANGE_ONLINE: &str = include_str!("exchange-online.txt");

impl Peer {
    /// Whether a connection from `address`, with the DNS names of its verified client certificate,
    /// is this peer. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn admits(&self, address: IpAddr, certificate_names: &[String]) -> bool {
        let address = address.to_canonical();
        match self {
            Self::Network(network) => network.contains(&address),
            Self::ExchangeOnline => exchange_online().any(|network| network.contains(&address)),
            Self::Certificate(name) => certificate_names
                .iter()
                .any(|seen| seen.eq_ignore_ascii_case(name)),
        }
    }
}

/// The networks of the shipped list.
pub fn exchange_online() -> impl Iterator<Item = IpNet> {
    EXCHANGE_ONLINE
        .lines()
        .filter_map(|line| line.split('#').next()?.trim().parse().ok())
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "exchange-online" {
            return Ok(Self::ExchangeOnline);
        }
        if let Some(name) = text.strip_prefix("certificate:") {
            return if name.is_empty() || name.contains(char::is_whitespace) {
                Err("no certificate name".into())
            } else {
                Ok(Self::Certificate(name.to_ascii_lowercase()))
            };
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Network(address.into()));
        }
        let network: IpNet = text.parse().map_err(|_| network_error(text))?;
        if network.trunc() != network {
            return Err(format!(
                "host bits are set; the network is {}",
                network.trunc()
            ));
        }
        Ok(Self::Network(network))
    }
}

/// Why a text is no network.
fn network_error(text: &str) -> String {
    let Some((address, length)) = text.split_once('/') else {
        return "no address, network or known name".into();
    };
    match address.parse::<IpAddr>() {
        Err(_) => format!("{address:?} is no IP address"),
        Ok(address) => {
            let most = if address.is_ipv4() { 32 } else { 128 };
            format!("the prefix length {length:?} is not 0 to {most}")
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => write!(f, "{network}"),
            Self::ExchangeOnline => f.write_str("exchange-online"),
            Self::Certificate(name) => write!(f, "certificate:{name}"),
        }
    }
}

/// Whether a text is a host name as SMTP and DNS take it: labels of letters, digits, `-` and `_`.
pub(super) fn is_host_name(text: &str) -> bool {
    let labels = text.strip_suffix('.').unwrap_or(text);
    !labels.is_empty()
        && labels.len() <= 253
        && labels.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, octets, printed) in [
            ("200 MiB", Some(200 << 20), "200 MiB"),
            ("200MiB", Some(200 << 20), "200 MiB"),
            ("150 MB", Some(150_000_000), "150 MB"),
            ("1024 KiB", Some(1 << 20), "1 MiB"),
            ("17", Some(17), "17 B"),
            ("1_000 b", Some(1000), "1 kB"),
            ("0 B", Some(0), "0 B"),
            ("-1 MiB", None, ""),
            ("1.5 GiB", None, ""),
            ("12 parsecs", None, ""),
            ("99999999999 TiB", None, ""),
            ("", None, ""),
        ] {
            let size = text.parse::<Size>().ok();
            assert_eq!(size.map(Size::octets), octets, "{text}");
            if let Some(size) = size {
                assert_eq!(size.to_string(), printed, "{text}");
            }
        }
    }

    #[test]
    fn spans() {
        for (text, seconds, printed) in [
            ("30 s", Some(30), "30 s"),
            ("5 min", Some(300), "5 min"),
            ("24 h", Some(86_400), "1 days"),
            ("90 days", Some(90 * 86_400), "90 days"),
            ("2 years", Some(730 * 86_400), "2 years"),
            ("5", None, ""),
            ("5 fortnights", None, ""),
            ("min", None, ""),
        ] {
            let span = text.parse::<Span>().ok();
            assert_eq!(span.map(|span| span.0.as_secs()), seconds, "{text}");
            if let Some(span) = span {
                assert_eq!(span.to_string(), printed, "{text}");
            }
        }
    }

    #[test]
    fn peers() {
        for (text, expected) in [
            ("10.0.0.0/8", Ok(())),
            ("2001:db8::/32", Ok(())),
            ("192.0.2.7", Ok(())),
            ("exchange-online", Ok(())),
            ("certificate:mail.example", Ok(())),
            ("certificate:", Err("no certificate name")),
            (
                "10.0.0.0/33",
                Err("the prefix length \"33\" is not 0 to 32"),
            ),
            ("10.0.0/8", Err("\"10.0.0\" is no IP address")),
            (
                "10.1.0.0/8",
                Err("host bits are set; the network is 10.0.0.0/8"),
            ),
            ("exchange", Err("no address, network or known name")),
        ] {
            let peer = text.parse::<Peer>().map(|_| ());
            assert_eq!(peer, expected.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn peers_admit() {
        let mapped: IpAddr = "::ffff:40.92.1.2".parse().unwrap();
        let names = ["Mail.Protection.Outlook.com".to_owned()];
        let certificate: Peer = "certificate:mail.protection.outlook.com".parse().unwrap();
        assert!(Peer::ExchangeOnline.admits(mapped, &[]));
        assert!(!Peer::ExchangeOnline.admits("192.0.2.1".parse().unwrap(), &[]));
        assert!(certificate.admits(mapped, &names));
        assert!(!certificate.admits(mapped, &[]));
        let networks = EXCHANGE_ONLINE
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .count();
        assert_eq!(
            exchange_online().count(),
            networks,
            "every line is a network"
        );
    }
}
