//! Times as people write them.

use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::clock;

/// An instant that a command line names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct When(pub(super) Timestamp);

/// What [`When`] understands, for messages and help.
const FORMATS: &str = "RFC 3339 (2026-11-20T08:30:00Z), a UTC date (2026-11-20), or how long ago (30min, 2h, 3d, 1w, \"2h ago\")";

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text, clock::now())
            .map(Self)
            .ok_or_else(|| format!("no time; write {FORMATS}"))
    }
}

fn parse(text: &str, now: Timestamp) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    if text.len() == 10
        && let Ok(date) = text.parse::<Date>()
    {
        return Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp());
    }
    let ago = text.strip_suffix("ago").unwrap_or(text).trim();
    let digits = ago.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = ago.split_at(digits);
    let number: i64 = number.parse().ok()?;
    let seconds = match unit.trim() {
        "s" | "sec" | "second" | "seconds" => 1,
        "m" | "min" | "minute" | "minutes" => 60,
        "h" | "hour" | "hours" => 3_600,
        "d" | "day" | "days" => 86_400,
        "w" | "week" | "weeks" => 7 * 86_400,
        _ => return None,
    };
    now.checked_sub(SignedDuration::from_secs(number.checked_mul(seconds)?))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2026-11-20T08:30:00Z", Some("2026-11-20T08:30:00Z")),
            ("2026-11-20T08:30:00+02:00", Some("2026-11-20T06:30:00Z")),
            ("2026-11-20", Some("2026-11-20T00:00:00Z")),
            ("2h", Some("2026-11-21T10:00:00Z")),
            ("2 h ago", Some("2026-11-21T10:00:00Z")),
            ("3d ago", Some("2026-11-18T12:00:00Z")),
            ("1w", Some("2026-11-14T12:00:00Z")),
            ("30min", Some("2026-11-21T11:30:00Z")),
            ("20/11/2026", None),
            ("2026-11-31", None),
            ("yesterday", None),
            ("7", None),
            ("99999999999999999d", None),
            ("", None),
        ] {
            let expected: Option<Timestamp> = expected.map(|time| time.parse().unwrap());
            assert_eq!(parse(text, now), expected, "{text}");
        }
    }
}
