//! Any octets for the report [`Scanner`]: no panic, no more memory than the limits allow, and where the
//! stream is cut changes nothing.
#![no_main]

use clawback::journal::{Kind, Limits, Scanner, json, parse};
use libfuzzer_sys::fuzz_target;

/// Low, so that short inputs reach every bound.
const LIMITS: Limits = Limits {
    outer_header: 2048,
    inner_header: 1024,
    part_header: 512,
    field: 256,
    max_recipients: 16,
    depth: 4,
    parts: 12,
    url_domains: 4,
};

fuzz_target!(|octets: &[u8]| {
    let whole = parse(octets, LIMITS);
    let mut scanner = Scanner::new(LIMITS);
    let mut recipients = Vec::new();
    for piece in octets.chunks(octets.len() % 97 + 1) {
        scanner.handle_octets(piece);
        recipients.extend(scanner.take_recipients());
        assert!(scanner.memory() < 1 << 20, "{} octets held", scanner.memory());
    }
    let mut cut = scanner.finish();
    if cut.kind == Kind::Report {
        recipients.append(&mut cut.recipients);
        cut.recipients = recipients;
    }
    assert_eq!(cut, whole);
    assert!(whole.recipients.is_empty() || whole.kind == Kind::Report);
    assert_eq!(whole.recipients.len() as u64, whole.recipient_count);
    let _ = json(&whole);
});
