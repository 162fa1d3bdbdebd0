//! The octets that the peer has sent and the session has not used: one buffer, read into and lent from.

/// Room for command lines: one of the longest, and what was pipelined behind it.
const COMMAND_ROOM_OCTETS: usize = 4 * 1024;

/// Room for content: a TLS record holds 16 KiB (RFC 8446 §5.1).
const CONTENT_ROOM_OCTETS: usize = 32 * 1024;

/// A buffer whose `start..end` is pending.
#[derive(Debug, Default)]
pub(super) struct Input {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    /// Room behind what is pending, never empty. It grows for content and shrinks after it, so that
    /// a thousand idle sessions cost little.
    pub(super) fn space(&mut self, content: bool) -> &mut [u8] {
        let room = if content {
            CONTENT_ROOM_OCTETS
        } else {
            COMMAND_ROOM_OCTETS
        };
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.buffer.len() != room {
                self.buffer = vec![0; room];
            }
        }
        self.reserve(room / 2);
        self.buffer.get_mut(self.end..).unwrap_or_default()
    }

    /// So many octets of [`space`](Self::space) are from the peer.
    pub(super) fn filled(&mut self, octets: usize) {
        self.end = self.end.saturating_add(octets).min(self.buffer.len());
    }

    /// Appends a copy.
    pub(super) fn extend(&mut self, octets: &[u8]) {
        self.reserve(octets.len());
        let end = self.end + octets.len();
        if let Some(space) = self.buffer.get_mut(self.end..end) {
            space.copy_from_slice(octets);
            self.end = end;
        }
    }

    pub(super) fn consume(&mut self, octets: usize) {
        self.start = self.start.saturating_add(octets).min(self.end);
    }

    /// Forgets everything and gives the memory back.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn pending(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// The last `octets` octets that were consumed. They stay until the buffer is written to.
    pub(super) fn consumed(&self, octets: usize) -> &[u8] {
        let from = self.start.saturating_sub(octets);
        self.buffer.get(from..self.start).unwrap_or_default()
    }

    pub(super) const fn memory(&self) -> usize {
        self.buffer.capacity()
    }

    /// At least `octets` octets of room behind what is pending.
    fn reserve(&mut self, octets: usize) {
        if self.buffer.len() - self.end >= octets {
            return;
        }
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.buffer.len() - self.end < octets {
            self.buffer.resize(self.end + octets, 0);
        }
    }
}
