//! Journal reports inside other mail: an undeliverable-report NDR carries the report that could not
//! be delivered as a message/rfc822 part (RFC 3462, RFC 2046 §5.2.1).

/// How deep an NDR may be wrapped: forwarded as attachment once or twice.
const DEPTH: usize = 4;

/// Octets of a header that are looked at.
const HEADER: usize = 1 << 20;

/// The journal reports that a message carries; the message itself if it is one, or carries none.
pub(super) fn carried(message: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    collect(message, DEPTH, &mut found);
    if found.is_empty() {
        found.push(message);
    }
    found
}

fn collect<'a>(message: &'a [u8], depth: usize, found: &mut Vec<&'a [u8]>) {
    let (header, body) = split_header(message);
    if field(header, "x-ms-journal-report").is_some() {
        found.push(message);
        return;
    }
    let (Some(boundary), 1..) = (boundary(header), depth) else {
        return;
    };
    for part in parts(body, &boundary) {
        let (part_header, content) = split_header(part);
        let media = field(part_header, "content-type").unwrap_or_default();
        let media = media.split(';').next().unwrap_or_default().trim();
        if media.eq_ignore_ascii_case("message/rfc822") {
            collect(content, depth - 1, found);
        }
    }
}

/// Header, and what follows the empty line.
fn split_header(message: &[u8]) -> (&[u8], &[u8]) {
    if let Some(body) = message
        .strip_prefix(b"\r\n")
        .or_else(|| message.strip_prefix(b"\n"))
    {
        return (&[], body);
    }
    let window = message.get(..HEADER).unwrap_or(message);
    for at in memchr::memchr_iter(b'\n', window) {
        let after = message.get(at + 1..).unwrap_or_default();
        for end in [&b"\r\n"[..], b"\n"] {
            if let Some(body) = after.strip_prefix(end) {
                return (message.get(..=at).unwrap_or_default(), body);
            }
        }
    }
    (message, &[])
}

/// The first field of that name, unfolded; `name` is lower case.
fn field(header: &[u8], name: &str) -> Option<String> {
    let mut value: Option<String> = None;
    for line in header.split(|octet| *octet == b'\n') {
        let text = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
        if let Some(value) = &mut value {
            if !text.starts_with([' ', '\t']) {
                break;
            }
            value.push_str(&text);
        } else if let Some((found, rest)) = text.split_once(':')
            && found.trim_end().eq_ignore_ascii_case(name)
        {
            value = Some(rest.trim().to_owned());
        }
    }
    value
}

/// The boundary of a multipart message.
fn boundary(header: &[u8]) -> Option<Vec<u8>> {
    let media = field(header, "content-type")?;
    let lower = media.to_ascii_lowercase();
    if !lower.trim_start().starts_with("multipart/") {
        return None;
    }
    let at = lower.find("boundary=")? + "boundary=".len();
    let rest = media.get(at..)?;
    let text = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?,
        None => rest.split([';', ' ', '\t']).next()?,
    };
    (!text.is_empty()).then(|| text.as_bytes().to_vec())
}

/// The parts between the boundary lines, without the line end before each (RFC 2046 §5.1.1).
fn parts<'a>(body: &'a [u8], boundary: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    let mut start: Option<usize> = None;
    let mut line = 0;
    while line < body.len() {
        let rest = body.get(line..).unwrap_or_default();
        let end = memchr::memchr(b'\n', rest).map_or(body.len(), |at| line + at + 1);
        let after = rest
            .strip_prefix(b"--")
            .and_then(|rest| rest.strip_prefix(boundary));
        if let Some(after) = after
            && after
                .first()
                .is_none_or(|next| matches!(next, b'-' | b'\r' | b'\n' | b' ' | b'\t'))
        {
            if let Some(start) = start.take() {
                parts.push(without_line_end(body.get(start..line).unwrap_or_default()));
            }
            if after.starts_with(b"--") {
                return parts;
            }
            start = Some(end);
        }
        line = end;
    }
    // A part that was cut off is still worth reading.
    parts.extend(start.and_then(|start| body.get(start..)));
    parts
}

fn without_line_end(part: &[u8]) -> &[u8] {
    let part = part.strip_suffix(b"\n").unwrap_or(part);
    part.strip_suffix(b"\r").unwrap_or(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "X-MS-Journal-Report:\r\nMessage-ID: <r@x>\r\n\r\nbody\r\n";

    fn ndr(inner: &str) -> String {
        format!(
            "From: postmaster@x\r\nContent-Type: multipart/report;\r\n boundary=\"b 1\"\r\n\r\npreamble\r\n\
             --b 1\r\nContent-Type: text/plain\r\n\r\nfailed\r\n--b 1\r\nContent-Type: message/rfc822\r\n\r\n{inner}\r\n--b 1--\r\n"
        )
    }

    #[test]
    fn reports_are_taken_out_of_ndrs() {
        let plain = "Subject: hello\r\n\r\nhello\r\n";
        for (name, message, expected) in [
            ("a report", REPORT.to_owned(), REPORT),
            ("an NDR", ndr(REPORT), REPORT),
            ("a forwarded NDR", ndr(&ndr(REPORT)), REPORT),
            (
                "line ends of Unix",
                ndr(REPORT).replace("\r\n", "\n"),
                &REPORT.replace("\r\n", "\n"),
            ),
        ] {
            let found = carried(message.as_bytes());
            let found: Vec<_> = found
                .iter()
                .map(|found| String::from_utf8_lossy(found))
                .collect();
            assert_eq!(found, [expected], "{name}");
        }
        for message in [plain.to_owned(), ndr(plain), String::new()] {
            assert_eq!(
                carried(message.as_bytes()),
                [message.as_bytes()],
                "no report inside"
            );
        }
    }

    /// A report that journals an NDR with a report inside is itself the report.
    #[test]
    fn reports_are_not_looked_into() {
        let report = format!("X-MS-Journal-Report:\r\n{}", ndr(REPORT));
        assert_eq!(carried(report.as_bytes()), [report.as_bytes()]);
    }
}
