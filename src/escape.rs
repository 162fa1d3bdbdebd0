//! The one escaping function at every output border: terminal, log, CSV, JSON.
//!
//! Subjects, addresses and Message-IDs were written by strangers. What leaves the program holds no
//! control character (C0, C1), no bidirectional control and no zero-width or otherwise invisible
//! character; each is shown as `\u{..}` instead, so that no text moves the cursor, forges a line or
//! hides a part of itself. In JSON the same characters become `\u` escapes, which change nothing
//! for a program that reads it.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;

use serde::Serialize;
use serde_json::ser::Formatter;

/// Characters of a text that a table shows at most.
pub const TABLE_CHARACTERS: usize = 120;

/// The text without any character that could act instead of show; for terminals and logs.
pub fn plain(text: &str) -> Cow<'_, str> {
    if is_plain(text) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        push_plain(&mut escaped, character);
    }
    Cow::Owned(escaped)
}

/// Like [`plain`], cut after `most` characters; a cut text ends in `…`.
pub fn short(text: &str, most: usize) -> Cow<'_, str> {
    let escaped = plain(text);
    match escaped.char_indices().nth(most) {
        None => escaped,
        Some(_) => {
            let mut cut: String = escaped.chars().take(most.saturating_sub(1)).collect();
            cut.push('…');
            Cow::Owned(cut)
        }
    }
}

/// Appends a field of a CSV line (RFC 4180): quoted where needed, control characters escaped, and
/// `'` before a text that a spreadsheet would take for a formula.
pub fn csv_field(line: &mut String, text: &str) {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    let quoted = text.contains([',', '"', ';']);
    if !formula && !quoted && is_plain(text) {
        line.push_str(text);
        return;
    }
    if quoted {
        line.push('"');
    }
    if formula {
        line.push('\'');
    }
    for character in text.chars() {
        if character == '"' {
            line.push('"');
        }
        push_plain(line, character);
    }
    if quoted {
        line.push('"');
    }
}

/// A value as one line of JSON, without a line end.
///
/// # Errors
///
/// The value cannot be JSON, such as a map with keys that are no text.
pub fn json(value: &impl Serialize) -> serde_json::Result<String> {
    let mut octets = Vec::with_capacity(256);
    write_json(&mut octets, value)?;
    // serde_json writes UTF-8 alone.
    Ok(String::from_utf8(octets).unwrap_or_default())
}

/// Writes a value as one line of JSON, without a line end.
///
/// # Errors
///
/// Those of the writer, and of [`json`].
pub fn write_json(into: impl io::Write, value: &impl Serialize) -> serde_json::Result<()> {
    let mut serializer = serde_json::Serializer::with_formatter(into, Careful);
    value.serialize(&mut serializer)
}

/// Compact JSON in which every character that [`acts`] is escaped.
struct Careful;

impl Formatter for Careful {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        writer.write_all(in_json(fragment).as_bytes())
    }
}

/// JSON text without any character that acts: each becomes a `\u` escape, and the value stays the same.
/// The text is JSON already; characters that act can only be within its strings then.
pub fn in_json(text: &str) -> Cow<'_, str> {
    if is_plain(text) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if !acts(character) {
            escaped.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    }
    Cow::Owned(escaped)
}

fn push_plain(into: &mut String, character: char) {
    if acts(character) {
        // Writing to a String cannot fail.
        let _ = write!(into, "\\u{{{:x}}}", u32::from(character));
    } else {
        into.push(character);
    }
}

/// Whether no character of a text acts; nearly all texts are printable ASCII, which is fast to see.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|octet| matches!(octet, b' '..=b'~')) || !text.chars().any(acts)
}

/// Whether a character does something instead of showing something.
fn acts(character: char) -> bool {
    if character < '\u{7f}' {
        return character < ' ';
    }
    matches!(character,
        '\u{7f}'..='\u{9f}'          // DEL and C1
        | '\u{ad}'                   // soft hyphen
        | '\u{61c}'                  // Arabic letter mark
        | '\u{115f}' | '\u{1160}'    // Hangul fillers
        | '\u{17b4}' | '\u{17b5}'    // Khmer inherent vowels
        | '\u{180b}'..='\u{180e}'    // Mongolian selectors
        | '\u{200b}'..='\u{200f}'    // zero-width, left-to-right and right-to-left marks
        | '\u{2028}'..='\u{202e}'    // line and paragraph separator, embeddings, overrides
        | '\u{2060}'..='\u{206f}'    // word joiner, isolates, deprecated format characters
        | '\u{3164}' | '\u{ffa0}'    // Hangul fillers
        | '\u{fe00}'..='\u{fe0f}'    // variation selectors
        | '\u{feff}'                 // byte order mark
        | '\u{fff9}'..='\u{fffb}'    // interlinear annotation
        | '\u{1d173}'..='\u{1d17a}'  // musical format characters
        | '\u{e0000}'..='\u{e0fff}'  // tags and further selectors
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_acts_is_shown() {
        for (name, text, expected) in [
            ("plain", "Grüße, 世界 🎉", "Grüße, 世界 🎉"),
            ("line end", "a\r\nb", "a\\u{d}\\u{a}b"),
            ("escape sequence", "\u{1b}[2Jx", "\\u{1b}[2Jx"),
            ("C1", "a\u{9b}2Jb", "a\\u{9b}2Jb"),
            ("override", "a\u{202e}fdp.exe", "a\\u{202e}fdp.exe"),
            ("isolate", "\u{2066}a\u{2069}", "\\u{2066}a\\u{2069}"),
            ("zero width", "pay\u{200b}pal", "pay\\u{200b}pal"),
            ("tag", "a\u{e0041}", "a\\u{e0041}"),
            ("NUL and DEL", "\0\u{7f}", "\\u{0}\\u{7f}"),
        ] {
            assert_eq!(plain(text), expected, "{name}");
        }
    }

    #[test]
    fn csv_fields() {
        for (name, text, expected) in [
            ("plain", "Hello", "Hello"),
            ("comma", "a, b", "\"a, b\""),
            ("quote", "a \"b\"", "\"a \"\"b\"\"\""),
            ("formula", "=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
            (
                "formula with quotes",
                "=HYPERLINK(\"x\",1)",
                "\"'=HYPERLINK(\"\"x\"\",1)\"",
            ),
            ("at", "@SUM(A1)", "'@SUM(A1)"),
            ("minus", "-2+3", "'-2+3"),
            ("tab", "\t=1", "'\\u{9}=1"),
            ("line end", "a\nb", "a\\u{a}b"),
            ("full width", "＝1", "'＝1"),
        ] {
            let mut line = String::new();
            csv_field(&mut line, text);
            assert_eq!(line, expected, "{name}");
        }
    }

    #[test]
    fn texts_are_cut_at_characters() {
        assert_eq!(short("äöü", 3), "äöü");
        assert_eq!(short("äöüß", 3), "äö…");
    }

    proptest! {
        #[test]
        fn nothing_that_acts_gets_out(text in "\\PC{0,8}[\\x00-\\x9f\u{200b}-\u{206f}]{0,8}\\PC{0,8}") {
            let mut line = String::new();
            csv_field(&mut line, &text);
            prop_assert!(!plain(&text).chars().any(acts));
            prop_assert!(!line.chars().any(acts));
        }

        #[test]
        fn json_means_the_same(text in any::<String>()) {
            let line = json(&text).unwrap();
            prop_assert!(!line.chars().any(acts));
            prop_assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
        }
    }
}
