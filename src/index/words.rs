//! A subject's words, as they are indexed and searched.
//!
//! A word is a run of letters and digits in lower case (Unicode). Scripts that are written without
//! blanks (Han, Kana, Thai and their kin) have a word for each character: searched as a phrase, any
//! part of such a text is found.

/// Distinct words of a subject that are indexed; more are only found beside others.
pub(crate) const INDEXED_WORDS: usize = 256;

/// The words of a text in order.
pub(crate) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    for character in text.chars().flat_map(char::to_lowercase) {
        // Final sigma has no upper case of its own.
        let character = if character == 'ς' { 'σ' } else { character };
        let alone = stands_alone(character);
        if alone || !(character.is_alphanumeric() || joins(character)) {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            if alone {
                words.push(character.into());
            }
        } else {
            word.push(character);
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Combining marks belong to the letter before them.
fn joins(character: char) -> bool {
    matches!(character, '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{20d0}'..='\u{20ff}')
}

/// Characters of scripts that put no blanks between words.
fn stands_alone(character: char) -> bool {
    matches!(character,
        '\u{e00}'..='\u{eff}' // Thai, Lao
        | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' // Myanmar, Khmer
        | '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' // Kana
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' // Han
        | '\u{20000}'..='\u{3ffff}')
}

/// Do `needle`'s words stand in `text` one after the other? Nothing to look for is always there.
pub(crate) fn holds_phrase(text: &[String], needle: &[String]) -> bool {
    needle.is_empty() || text.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_subjects() {
        for (text, expected) in [
            ("", vec![]),
            (
                "RE: Your INVOICE #4711!",
                vec!["re", "your", "invoice", "4711"],
            ),
            ("ÄRGER straße ΣΊΣΥΦΟΣ", vec!["ärger", "straße", "σίσυφοσ"]),
            ("会议 notes", vec!["会", "议", "notes"]),
            ("e\u{301}t\u{e9}", vec!["e\u{301}t\u{e9}"]),
            ("--", vec![]),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn phrases_are_neighbours() {
        let text = words("please pay the open invoice");
        for (needle, found) in [
            ("pay the", true),
            ("the pay", false),
            ("open invoice", true),
            ("", true),
        ] {
            assert_eq!(holds_phrase(&text, &words(needle)), found, "{needle}");
        }
    }
}
