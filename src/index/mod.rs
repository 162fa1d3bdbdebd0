//! What was journaled and where to find it.

pub mod commit;
mod feed;
pub mod log;
