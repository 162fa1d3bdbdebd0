//! Times: as Exchange writes `SentUtc` and `ReceivedUtc`, and as mail headers write `Date`.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

/// Longest text that is read as a time, in octets.
const TIME_OCTETS: usize = 128;

/// A time of the envelope part, UTC unless it says otherwise: `7/6/2026 8:00:00 AM` (month first, as
/// Exchange's invariant culture has it), `2026-07-06T08:00:00Z`, or RFC 5322.
pub(super) fn envelope(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if text.len() > TIME_OCTETS {
        return None;
    }
    text.parse::<Timestamp>()
        .ok()
        .or_else(|| civil(text))
        .or_else(|| header(text))
}

/// A `Date` field (RFC 5322 §3.3, obsolete forms included).
pub(super) fn header(text: &str) -> Option<Timestamp> {
    let text = text.get(..text.floor_char_boundary(TIME_OCTETS))?;
    let parse = mail_parser::DateTime::parse_rfc822;
    // A time without a zone is taken as UTC, like "-0000" (RFC 5322 §3.3).
    let mut time = parse(text).or_else(|| parse(&format!("{text} +0000")))?;
    // A leap second is the next second's beginning.
    let leap = time.second == 60;
    if leap {
        time.second = 59;
    }
    if !time.is_valid() {
        return None;
    }
    Timestamp::from_second(time.to_timestamp() + i64::from(leap)).ok()
}

/// Numbers in the order of ISO 8601, of the United States, or with dots day first.
fn civil(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.trim_end_matches([' ', 'Z', 'z']).parse::<DateTime>() {
        return utc(time);
    }
    let mut words = text.split_ascii_whitespace();
    let (date, clock) = (words.next()?, words.next()?);
    let half = words.next();
    if words.next().is_some() {
        return None;
    }
    let separator = date.chars().find(|c| !c.is_ascii_digit())?;
    let mut numbers = date.splitn(3, separator).map(str::parse::<i16>);
    let (a, b, c) = (
        numbers.next()?.ok()?,
        numbers.next()?.ok()?,
        numbers.next()?.ok()?,
    );
    let (year, month, day) = match separator {
        _ if a > 31 => (a, b, c),
        '.' => (c, b, a),
        _ if a > 12 => (c, b, a),
        _ => (c, a, b),
    };
    let mut clock = clock.splitn(3, ':');
    let hour = hour(clock.next()?.parse().ok()?, half)?;
    let minute = clock.next()?.parse().ok()?;
    let seconds = clock.next().unwrap_or("0");
    let second = seconds.split('.').next()?.parse().ok()?;
    let (month, day) = (i8::try_from(month).ok()?, i8::try_from(day).ok()?);
    utc(DateTime::new(year, month, day, hour, minute, second, 0).ok()?)
}

fn hour(hour: i8, half: Option<&str>) -> Option<i8> {
    let Some(half) = half.filter(|half| !half.eq_ignore_ascii_case("Z")) else {
        return Some(hour);
    };
    let half = half.to_ascii_lowercase();
    match half.replace('.', "").as_str() {
        "am" if (1..=12).contains(&hour) => Some(hour % 12),
        "pm" if (1..=12).contains(&hour) => Some(hour % 12 + 12),
        "utc" | "gmt" => Some(hour),
        _ => None,
    }
}

fn utc(time: DateTime) -> Option<Timestamp> {
    TimeZone::UTC.to_timestamp(time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, expected) in [
            ("7/6/2026 8:00:00 AM", Some("2026-07-06T08:00:00Z")),
            ("07/06/2026 12:05:09 am", Some("2026-07-06T00:05:09Z")),
            ("7/6/2026 12:00:00 PM", Some("2026-07-06T12:00:00Z")),
            ("7/6/2026 11:59:59 p.m.", Some("2026-07-06T23:59:59Z")),
            ("7/6/2026 20:00", Some("2026-07-06T20:00:00Z")),
            ("13/6/2026 20:00:01", Some("2026-06-13T20:00:01Z")),
            ("6.7.2026 20:00:01", Some("2026-07-06T20:00:01Z")),
            ("2026/07/06 20:00:01.5", Some("2026-07-06T20:00:01Z")),
            ("2026-07-06T08:00:00Z", Some("2026-07-06T08:00:00Z")),
            ("2026-07-06T08:00:00+02:00", Some("2026-07-06T06:00:00Z")),
            ("2026-07-06T08:00:00", Some("2026-07-06T08:00:00Z")),
            ("2026-07-06 08:00:00Z", Some("2026-07-06T08:00:00Z")),
            ("2026-07-06 08:00:00 Z", Some("2026-07-06T08:00:00Z")),
            (
                "Mon, 06 Jul 2026 08:00:00 +0200",
                Some("2026-07-06T06:00:00Z"),
            ),
            ("6 Jul 2026 08:00:00", Some("2026-07-06T08:00:00Z")),
            (
                "Thu, 31 Dec 2026 23:59:60 +0000",
                Some("2027-01-01T00:00:00Z"),
            ),
            ("", None),
            ("yesterday", None),
            ("2/30/2026 8:00:00 AM", None),
            ("7/6/2026 13:00:00 PM", None),
            ("7/6/99999 8:00:00 AM", None),
        ] {
            let found = envelope(text).map(|time| time.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }
}
