//! MESSAGE arguments: how the command line names a message.

use std::fmt;
use std::str::FromStr;

use crate::mail::{MessageId, RecordId};

/// A message as named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// `rec_…`: one record.
    Record(RecordId),
    /// Anything else: a Message-ID, with or without brackets. In brackets it is always one.
    MessageId(MessageId),
}

impl FromStr for Message {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Record(id));
        }
        if text.starts_with("rec_") && !text.contains('@') {
            return Err(
                "no record id: write rec_ and 26 base32 characters, or <…> for a Message-ID".into(),
            );
        }
        MessageId::new(text)
            .map(Self::MessageId)
            .ok_or_else(|| "empty; write a Message-ID or a record id".into())
    }
}

/// The form that reads back as the same.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(id) => write!(f, "{id}"),
            Self::MessageId(id) => write!(f, "<{id}>"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let record = RecordId::from_octets([7; 16]);
        let id = |text| Ok(Message::MessageId(MessageId::new(text).unwrap()));
        let name = record.to_string();
        for (text, expected) in [
            (name.as_str(), Ok(Message::Record(record))),
            (&format!("<{name}>"), id(&name)),
            ("<a@x>", id("a@x")),
            ("a@x", id("a@x")),
            ("rec_a@x", id("rec_a@x")),
            ("<<a@x>>", id("<<a@x>>")),
        ] {
            let read = text.parse::<Message>();
            assert_eq!(read, expected, "{text}");
            assert_eq!(read.unwrap().to_string().parse(), expected, "{text} again");
        }
        assert!("rec_short".parse::<Message>().is_err());
        assert!("<>".parse::<Message>().is_err());
    }
}
