//! What people and jobs decided: jobs, verdicts, policy, holds, domains. Kept in a log with snapshots
//! of its own, never dropped by the retention of reports.

pub mod jobs;
pub mod log;
