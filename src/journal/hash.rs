//! SHA-256 over octets that stream by.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};

/// A SHA-256 that is not complete yet.
pub(super) struct Sha256(Context);

impl Sha256 {
    /// Over nothing so far.
    pub(super) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Over these octets too.
    pub(super) fn update(&mut self, octets: &[u8]) {
        self.0.update(octets);
    }

    /// Over all that it was given.
    pub(super) fn finish(self) -> [u8; 32] {
        let mut hash = [0; 32];
        for (to, from) in hash.iter_mut().zip(self.0.finish().as_ref()) {
            *to = *from;
        }
        hash
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sha256")
    }
}
