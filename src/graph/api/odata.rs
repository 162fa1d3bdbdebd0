//! OData literals and percent-encoding (OData 4.01 URL conventions §5.1; RFC 3986 §2).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Everything but RFC 3986 unreserved characters. An unencoded `+` would be read as a space, and
/// the Message-ID not be found.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A text for Graph contains a control character. Nothing genuine does, so it is refused, not encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("contains the control character U+{:04X}, which is never sent to Graph", u32::from(*.0))]
pub struct ControlCharacter(pub char);

/// A string literal, single quotes doubled, percent-encoded for a query value.
///
/// # Errors
///
/// [`ControlCharacter`].
pub fn quoted(text: &str) -> Result<String, ControlCharacter> {
    refuse_control(text)?;
    Ok(encoded(&format!("'{}'", text.replace('\'', "''"))))
}

/// One segment of a path, percent-encoded: ids may contain `/`, `+` and `=`.
///
/// # Errors
///
/// [`ControlCharacter`].
pub fn segment(text: &str) -> Result<String, ControlCharacter> {
    refuse_control(text)?;
    // An encoded dot segment would still be removed by whoever normalises the path.
    Ok(match text {
        "." => "%252E".to_owned(),
        ".." => "%252E%252E".to_owned(),
        _ => encoded(text),
    })
}

/// Percent-encoded text that has been checked already.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

fn refuse_control(text: &str) -> Result<(), ControlCharacter> {
    match text.chars().find(|c| c.is_control()) {
        Some(found) => Err(ControlCharacter(found)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    #[test]
    fn literals() {
        for (name, text, expected) in [
            ("plain", "a@x", "%27a%40x%27"),
            ("quote", "O'Brien", "%27O%27%27Brien%27"),
            ("brackets", "<a@x>", "%27%3Ca%40x%3E%27"),
            ("plus", "a+b", "%27a%2Bb%27"),
            ("space", "a b", "%27a%20b%27"),
            ("slash, hash, percent", "a/b#c%d", "%27a%2Fb%23c%25d%27"),
            ("query characters", "a&b=c?d", "%27a%26b%3Dc%3Fd%27"),
            ("Unicode", "ü", "%27%C3%BC%27"),
            ("injection", "' or 1 eq 1", "%27%27%27%20or%201%20eq%201%27"),
        ] {
            assert_eq!(quoted(text).as_deref(), Ok(expected), "{name}");
        }
    }

    #[test]
    fn control_characters_are_refused() {
        for (name, text) in [
            ("line feed", "a\nb"),
            ("carriage return", "a\rb"),
            ("null", "a\0b"),
            ("delete", "a\u{7f}b"),
            ("C1", "a\u{85}b"),
        ] {
            assert!(quoted(text).is_err() && segment(text).is_err(), "{name}");
        }
    }

    #[test]
    fn dot_segments_cannot_climb() {
        assert_eq!(segment("..").as_deref(), Ok("%252E%252E"));
        assert_eq!(segment("a/../b").as_deref(), Ok("a%2F..%2Fb"));
    }

    proptest! {
        /// What the server decodes is the text, with its quotes doubled, and nothing else ends the value.
        #[test]
        fn decoding_gives_the_text_back(text in "\\PC{0,60}") {
            let literal = quoted(&text).unwrap();
            prop_assert!(literal.bytes().all(|b| b.is_ascii_alphanumeric() || b"%-._~".contains(&b)));
            let decoded = percent_decode_str(&literal).decode_utf8().unwrap();
            let inner = decoded.strip_prefix('\'').unwrap().strip_suffix('\'').unwrap();
            prop_assert_eq!(inner.replace("''", "'"), text);
        }
    }
}
