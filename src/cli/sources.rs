//! Where messages to import lie: single files, mbox, Maildir, directories, standard input.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// The largest message that is read; Exchange Online's own limit is 150 MB.
const LARGEST: usize = 256 << 20;

/// A message as it lies in its file, with CRLF line ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// The message.
    pub(super) octets: Vec<u8>,
}

/// The messages of all paths, one after the other; a file that cannot be read is an error among them.
pub(super) fn messages(paths: Vec<PathBuf>) -> impl Iterator<Item = io::Result<Message>> + Send {
    files(paths).flat_map(|path| match path.and_then(|path| open(&path)) {
        Ok(messages) => messages,
        Err(error) => Box::new(std::iter::once(Err(error))),
    })
}

type Messages = Box<dyn Iterator<Item = io::Result<Message>> + Send>;

/// Every file below the paths, in order of name.
fn files(paths: Vec<PathBuf>) -> impl Iterator<Item = io::Result<PathBuf>> + Send {
    let mut waiting: Vec<PathBuf> = paths.into_iter().rev().collect();
    std::iter::from_fn(move || {
        loop {
            let path = waiting.pop()?;
            if !path.is_dir() {
                return Some(Ok(path));
            }
            match children(&path) {
                Ok(children) => waiting.extend(children.into_iter().rev()),
                Err(error) => return Some(Err(named(&path, error))),
            }
        }
    })
}

/// What is in a directory; of a Maildir its messages alone, `tmp` holds half-written ones.
fn children(directory: &Path) -> io::Result<Vec<PathBuf>> {
    if directory.join("cur").is_dir() && directory.join("new").is_dir() {
        let mut both = entries(&directory.join("cur"))?;
        both.extend(entries(&directory.join("new"))?);
        return Ok(both);
    }
    entries(directory)
}

fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.retain(|path| {
        !path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
    });
    paths.sort();
    Ok(paths)
}

fn open(path: &Path) -> io::Result<Messages> {
    let file: Box<dyn Read + Send> = if path.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).map_err(|error| named(path, error))?)
    };
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mbox = reader
        .fill_buf()
        .map_err(|error| named(path, error))?
        .starts_with(b"From ");
    if mbox {
        let (mut mbox, path) = (Some(Mbox::new(reader)), path.to_owned());
        return Ok(Box::new(std::iter::from_fn(move || {
            let next = mbox.as_mut()?.next().map_err(|error| named(&path, error));
            if next.is_err() {
                // Where the next message begins is not known.
                mbox = None;
            }
            next.transpose()
        })));
    }
    let mut octets = Vec::new();
    reader
        .take(LARGEST as u64 + 1)
        .read_to_end(&mut octets)
        .map_err(|error| named(path, error))?;
    if octets.len() > LARGEST {
        return Err(named(
            path,
            io::Error::other("larger than any message; is it an mbox without a \"From \" line?"),
        ));
    }
    Ok(Box::new(std::iter::once(Ok(Message {
        octets: with_crlf(octets),
    }))))
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Reads an mbox (RFC 4155): a line `From ` after an empty one begins a message, and `>From ` is
/// quoted (mboxrd: one `>` is taken off).
struct Mbox<R> {
    reader: R,
    /// The `From ` line of the next message was read.
    begun: bool,
}

impl<R: BufRead> Mbox<R> {
    fn new(reader: R) -> Self {
        Self {
            reader,
            begun: false,
        }
    }

    fn next(&mut self) -> io::Result<Option<Message>> {
        let mut line = Vec::new();
        if !self.begun && self.reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        self.begun = false;
        let mut octets = Vec::new();
        let mut blank = true;
        loop {
            line.clear();
            if self.reader.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            if blank && line.starts_with(b"From ") {
                self.begun = true;
                break;
            }
            blank = matches!(line.as_slice(), b"\n" | b"\r\n");
            let unquoted = line.iter().position(|octet| *octet != b'>').unwrap_or(0);
            let quoted = unquoted > 0
                && line
                    .get(unquoted..)
                    .is_some_and(|rest| rest.starts_with(b"From "));
            octets.extend_from_slice(line.get(usize::from(quoted)..).unwrap_or_default());
            if octets.len() > LARGEST {
                return Err(io::Error::other(
                    "a message of the mbox is larger than any message may be",
                ));
            }
        }
        // The empty line before the next `From ` belongs to the mbox.
        for end in [&b"\r\n"[..], b"\n"] {
            if self.begun && octets.ends_with(end) {
                octets.truncate(octets.len() - end.len());
                break;
            }
        }
        Ok(Some(Message {
            octets: with_crlf(octets),
        }))
    }
}

/// The message as it was on the wire: a file whose first line ends in LF alone was converted when
/// it was saved, so every LF gets its CR back.
pub(super) fn with_crlf(octets: Vec<u8>) -> Vec<u8> {
    let first = memchr::memchr(b'\n', &octets);
    let unix = first.is_some_and(|at| at == 0 || octets.get(at - 1) != Some(&b'\r'));
    if !unix {
        return octets;
    }
    let mut converted = Vec::with_capacity(octets.len() + octets.len() / 32);
    let mut before = 0;
    for octet in octets {
        if octet == b'\n' && before != b'\r' {
            converted.push(b'\r');
        }
        converted.push(octet);
        before = octet;
    }
    converted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(paths: &[&Path]) -> Vec<String> {
        messages(paths.iter().map(|path| path.to_path_buf()).collect())
            .map(|message| String::from_utf8(message.unwrap().octets).unwrap())
            .collect()
    }

    #[test]
    fn mbox_messages_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mbox");
        let mbox = "From a@x Sat Nov 21 2026\nSubject: 1\n\nFrom the start\n>From here\n>>From there\n\n\
                    From b@x Sat Nov 21 2026\nSubject: 2\n\nlast\n";
        fs::write(&path, mbox).unwrap();
        // A `From ` line after an empty line is a message of its own, as every mbox reader takes it.
        let expected = [
            "Subject: 1\r\n",
            ">From here\r\n".trim_start_matches('>'),
            "Subject: 2\r\n\r\nlast\r\n",
        ];
        let found = read(&[&path]);
        assert_eq!(found[0], expected[0], "header alone");
        assert_eq!(found.last().map(String::as_str), Some(expected[2]));
        assert!(
            found[1].starts_with("From here\r\n>From there\r\n"),
            "{found:?}"
        );
    }

    #[test]
    fn maildirs_and_directories_are_read_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let maildir = directory.path().join("maildir");
        for (place, text) in [
            ("cur/1:2,S", "A: 1\r\n\r\n"),
            ("new/2", "A: 2\n\n"),
            ("tmp/3", "half"),
        ] {
            let path = maildir.join(place);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::write(directory.path().join("z.eml"), "A: 3\n\nline\n").unwrap();
        assert_eq!(
            read(&[directory.path()]),
            ["A: 1\r\n\r\n", "A: 2\r\n\r\n", "A: 3\r\n\r\nline\r\n"]
        );
    }

    #[test]
    fn bare_line_feeds_of_the_wire_stay() {
        let wire = b"A: 1\r\n\r\na\nb\r\n".to_vec();
        assert_eq!(with_crlf(wire.clone()), wire);
    }
}
