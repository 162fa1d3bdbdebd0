//! The disk of a whole service fails, call by call, or is full: it answers 451 or 452, never 250 for
//! what it loses, and goes on by itself.

use std::collections::BTreeSet;

use crate::cli_serving::change;
use crate::crash_support::{Bench, Feed, Program, rounds};
use crate::preload::Disk;

/// Kinds of calls that can fail.
const OPERATIONS: [&str; 8] = [
    "write", "sync", "dirsync", "open", "rename", "mkdir", "truncate", "unlink",
];
/// Which call of a kind fails: small numbers and large ones.
const CALLS: [u64; 6] = [1, 2, 4, 9, 21, 45];

fn only(codes: &BTreeSet<u16>, allowed: &[u16], when: &str) {
    let all = codes.iter().all(|code| allowed.contains(code));
    assert!(all, "{when}: {codes:?}");
}

/// One fault after another in one service. After each it takes reports again, and finds them.
#[test]
fn one_fault_anywhere_is_survived_by_the_service() {
    let bench = Bench::new(Disk::with_power_cuts(), Program::SmallPartitions(9));
    let mut feed = bench.feed();
    let mut service = bench.start();
    let mut number = 0;
    for _ in 0..rounds(1) {
        for operation in OPERATIONS {
            let before = bench.disk.failed();
            for call in CALLS {
                let error = ["EIO", "ENOSPC", "EDQUOT"][number % 3];
                number += 1;
                let fault = format!("{operation} {call} {error}");
                one_fault(&bench, &mut feed, &service, &fault);
            }
            // A file is cut back only after something else failed.
            let met = bench.disk.failed() > before || operation == "truncate";
            assert!(met, "{operation} never failed");
            feed.check_found(&service, &format!("{operation} failed"));
        }
        drop(service);
        bench.disk.cut_power();
        service = bench.start();
        feed.check(&service, "faults, then a power cut");
    }
}

fn one_fault(
    bench: &Bench,
    feed: &mut Feed,
    service: &crate::cli_serving::Serving<'_>,
    fault: &str,
) {
    let before = bench.disk.failed();
    bench.disk.fail(fault);
    for _ in 0..4 {
        feed.send(service.address(), 10);
        if bench.disk.failed() > before {
            break;
        }
    }
    bench.disk.fail("");
    feed.send(service.address(), 1);
    feed.send_all(service.address());
    only(&feed.take_codes(), &[250, 451, 452], fault);
}

/// A disk without space, before there are data and when there are: the service starts, asks to be
/// tried again, and takes reports as soon as there is space.
#[test]
fn a_service_on_a_full_disk_waits_for_space() {
    let bench = Bench::new(Disk::with_power_cuts(), Program::Binary);
    // The service manager makes the directory, and the key is made when the package is set up.
    let root = bench.disk.path();
    change(
        &bench.site,
        &format!("{}/store.key", root.display()),
        "store.key",
    );
    std::fs::create_dir(root.join("data")).unwrap();
    let mut feed = bench.feed();
    for when in ["nothing there", "data there"] {
        bench
            .disk
            .fail("space 0\nmkdir 1 ENOSPC 0\nopen 1 ENOSPC 0\n");
        let service = bench.start();
        feed.send(service.address(), 30);
        only(&feed.take_codes(), &[451, 452], when);
        bench.disk.fail("");
        feed.send_all(service.address());
        feed.take_codes();
        feed.check(&service, when);
    }
}
