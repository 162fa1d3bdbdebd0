//! Where the kernel's view of processes is.
//!
//! The hardened unit hides other users' processes and everything but processes from the service's own
//! `/proc`; what the service needs beyond that (the login uid of whoever asks, the boot id) it reads
//! from one read-only view that the unit names in `CLAWBACK_PROC`.

use std::path::PathBuf;

/// The environment variable that names another place than `/proc`.
pub const PROC_VARIABLE: &str = "CLAWBACK_PROC";

/// The folder to read `PID/loginuid` and `sys/kernel/random/boot_id` from.
pub fn proc_root() -> PathBuf {
    std::env::var_os(PROC_VARIABLE).map_or_else(|| PathBuf::from("/proc"), PathBuf::from)
}
