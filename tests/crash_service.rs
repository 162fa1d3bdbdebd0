//! The service is killed, or its machine loses power, at instants that a preloaded library chooses:
//! at its first start, while it starts, while it is fed, while it stops. Whatever was answered with
//! 250 is there afterwards.

use rustix::process::Signal;

use crate::crash_support::{Bench, Feed, Program, Random, rounds};
use crate::preload::Disk;

/// When the service is killed.
#[derive(Debug, Clone, Copy)]
enum Instant {
    Start,
    Feed,
    Stop,
}

/// Brings the service to its end at a call to the disk.
fn crash(bench: &Bench, feed: &mut Feed, instant: Instant, call: u64) {
    let kill = format!("call {call} KILL");
    if matches!(instant, Instant::Start) {
        bench.disk.fail(&kill);
    }
    let service = match bench.try_start() {
        Ok(service) => service,
        Err(ended) => {
            let killed = std::os::unix::process::ExitStatusExt::signal(&ended.status);
            assert_eq!(killed, Some(9), "{instant:?} {call}: {ended:#?}");
            return;
        }
    };
    match instant {
        Instant::Start => feed.send(service.address(), 20),
        Instant::Feed => {
            bench.disk.fail(&kill);
            feed.send(service.address(), 80);
        }
        Instant::Stop => {
            feed.send(service.address(), 30);
            bench.disk.fail(&kill);
            service.signal(Signal::TERM);
            service.end();
            return;
        }
    }
    // If the call never came, it ends here: dropping it is SIGKILL.
    drop(service);
}

/// Crashes at random calls; after each, a service that meets no fault has everything.
fn crashes(disk: Disk, program: Program, power_cuts: bool, few: u64) {
    let mut random = Random::new();
    let bench = Bench::new(disk, program);
    let mut feed = bench.feed();
    for round in 0..rounds(few) {
        let (instant, most) = match (round % 4, program) {
            // The first start makes key, directories and marker.
            (0, _) => (Instant::Start, 40),
            (2, Program::Binary) => (Instant::Stop, 25),
            (_, Program::Binary) => (Instant::Feed, 120),
            (_, Program::SmallPartitions(_)) => (Instant::Feed, 300),
        };
        let call = random.up_to(most);
        let before = bench.disk.failed();
        crash(&bench, &mut feed, instant, call);
        let met = ["not ", ""][usize::from(bench.disk.failed() > before)];
        let when = format!("{random}, round {round}, {instant:?}, {met}killed at call {call}");
        if power_cuts {
            bench.disk.cut_power();
        }
        bench.disk.fail("");
        let service = bench.start();
        feed.check(&service, &when);
        feed.send(service.address(), 1);
        feed.send_all(service.address());
        feed.check_found(&service, &format!("{when}, sent again"));
        let codes = feed.take_codes();
        assert!(codes.iter().all(|code| *code == 250), "{when}: {codes:?}");
    }
}

#[test]
fn a_service_killed_at_any_instant_loses_nothing() {
    crashes(Disk::new(), Program::Binary, false, 4);
}

#[test]
fn a_service_killed_while_it_seals_loses_nothing() {
    crashes(Disk::new(), Program::SmallPartitions(9), false, 4);
}

#[test]
fn a_power_cut_at_any_instant_takes_nothing_from_the_service() {
    crashes(Disk::with_power_cuts(), Program::Binary, true, 4);
}

#[test]
fn a_power_cut_while_it_seals_takes_nothing_from_the_service() {
    let disk = Disk::with_power_cuts();
    crashes(disk, Program::SmallPartitions(9), true, 4);
}
