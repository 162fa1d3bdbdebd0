//! What was journaled, and where to find it.
//!
//! ```text
//! report -> Draft -> commit: group commit into the report log -> 250
//!                      |
//!                      v feed, bounded
//!                   indexer: memory -> sled (open partition) -> run (closed partition)
//!                                                     search <-/
//! ```
//!
//! The log is the truth: a report is kept when [`Draft::commit`] returns. Everything else can be made
//! again from it, and is, in any doubt. A partition is what retention drops as one: up to 100,000
//! reports or a day of the feed, or one day of imported reports.
//!
//! `frame`, `identity`, `key`, `words`, `query` and `record` are values without I/O; `block`, `bloom`
//! and `summary` the pieces that `open` (sled) and `run` (sealed files) are made of; `indexer` and
//! `seal` move reports through them; `search` reads.

mod block;
mod bloom;
mod codec;
pub mod commit;
mod error;
mod feed;
mod frame;
mod guard;
mod identity;
mod import;
mod indexer;
mod key;
pub mod log;
mod logged;
mod marker;
mod open;
mod partition;
mod query;
mod record;
mod retention;
mod rows;
mod run;
mod seal;
mod search;
mod shared;
mod stats;
mod store;
mod summary;
mod words;

pub use codec::DecodeError;
pub use commit::CommitError;
pub use error::StoreError;
pub use frame::{FORMAT, KIND_RECIPIENTS, KIND_REPORT, Kept, decode_spilled, encode_spilled};
pub use identity::{ReportKey, record_id, report_key};
pub use import::{ImportError, Imported, Importer};
pub use query::{Query, SubjectTerm, SubjectTerms};
pub use record::Record;
pub use retention::Expired;
pub use search::Search;
pub use stats::{Finding, PartitionStats, Stats, Verified};
pub use store::{Committed, Draft, NewReport, Options, Store};
