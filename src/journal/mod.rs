//! Octets of a journal report in, its facts out ([MS-XJRNL] 2.1; no I/O).

mod report;

pub use report::{Attachment, Envelope, Field, Inner, Kind, Outer, Recipient, Report};
