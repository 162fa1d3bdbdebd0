//! Peers that send without end, to the real process: what it answers, and that its memory stays flat.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::cli_serving::{Serving, Site, TENANT, change, sample};

const MIB: usize = 1 << 20;
/// What each peer sends of one thing.
const FLOOD: usize = 1 << 30;
/// How much more memory may be resident, in KiB: for 3 GiB in all.
const FLAT_KIB: u64 = 16 << 10;

/// One SMTP connection in clear text.
struct Peer(BufReader<TcpStream>);

impl Peer {
    fn greeted(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        let patience = Some(Duration::from_secs(60));
        stream.set_read_timeout(patience).unwrap();
        stream.set_write_timeout(patience).unwrap();
        let mut peer = Self(BufReader::new(stream));
        assert!(peer.reply().starts_with("220 "));
        peer.tell("EHLO flood.example", "250 ");
        peer
    }

    fn send(&mut self, octets: &[u8]) {
        self.0.get_mut().write_all(octets).unwrap();
    }

    /// The last line of the next reply.
    fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            if line.get(3..4) != Some("-") {
                return line;
            }
        }
    }

    fn tell(&mut self, command: &str, expected: &str) {
        self.send(format!("{command}\r\n").as_bytes());
        let reply = self.reply();
        assert!(reply.starts_with(expected), "{command}: {reply}");
    }

    fn transaction(&mut self) {
        self.tell("MAIL FROM:<>", "250 ");
        self.tell("RCPT TO:<k3v9@journal.example.com>", "250 ");
    }

    /// Sends so many octets; lines, or one line.
    fn flood(&mut self, octets: usize, line_end: &str) {
        let line = ["x".repeat(62).as_str(), line_end].concat();
        let piece = line.repeat(MIB / line.len());
        assert_eq!(piece.len(), MIB);
        for _ in 0..octets / MIB {
            self.send(piece.as_bytes());
        }
    }
}

fn endless_line(peer: &mut Peer, octets: usize) {
    peer.flood(octets, "xx");
    peer.tell("", "500 5.");
}

fn oversize_data(peer: &mut Peer, octets: usize) {
    peer.transaction();
    peer.tell("DATA", "354 ");
    peer.flood(octets, "\r\n");
    peer.tell(".", "552 5.3.4");
}

fn oversize_chunk(peer: &mut Peer, octets: usize) {
    peer.transaction();
    peer.send(format!("BDAT {octets} LAST\r\n").as_bytes());
    peer.flood(octets, "\r\n");
    assert!(peer.reply().starts_with("552 5.3.4"));
}

/// A report of the tenant, or what is none, with so much text in the journaled message.
fn large_message(peer: &mut Peer, octets: usize, marked: bool) {
    let report = fs::read_to_string(sample("01_inbound.eml")).unwrap();
    let report = match marked {
        true => report,
        false => report.replace("X-MS-Journal-Report", "X-Other"),
    };
    let (head, tail) = report.split_at(report.rfind("\r\n--").unwrap());
    peer.transaction();
    peer.tell("DATA", "354 ");
    peer.send(head.as_bytes());
    peer.flood(octets, "\r\n");
    peer.send(tail.as_bytes());
    let expected = match marked {
        true => "250 2.0.0 report recorded",
        false => "250 2.0.0 message quarantined",
    };
    peer.tell(".", expected);
}

/// A number of `/proc/PID/status`, in KiB.
fn memory(service: &Serving<'_>, name: &str) -> u64 {
    let path = format!("/proc/{}/status", service.pid().as_raw_nonzero());
    let status = fs::read_to_string(path).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().nth(1));
    number.unwrap().parse().unwrap()
}

/// What is believed and what is not costs the same memory, large or small.
#[test]
fn a_large_message_leaves_the_memory_flat() {
    let site = Site::new(TENANT);
    let name = "hostname = \"localhost\"";
    change(&site, name, &format!("{name}\ntls = \"optional\""));
    let service = site.serve();
    for marked in [true, false] {
        let mut peer = Peer::greeted(service.address());
        large_message(&mut peer, MIB, marked);
        let before = memory(&service, "VmHWM");
        large_message(&mut peer, 48 * MIB, marked);
        let after = memory(&service, "VmHWM");
        assert!(after <= before + FLAT_KIB, "{before} KiB, then {after} KiB");
    }
    assert!(service.stop().success());
}

/// A line without end, a message and a chunk over the size, a GiB each at the same time.
#[test]
fn a_gibibyte_of_anything_leaves_the_memory_flat() {
    let site = Site::new(TENANT);
    let name = "hostname = \"localhost\"";
    let limits = format!("{name}\ntls = \"optional\"\nmax_message = \"1 MiB\"");
    change(&site, name, &limits);
    let service = site.serve();
    let attacks: [fn(&mut Peer, usize); 3] = [endless_line, oversize_data, oversize_chunk];
    let attack = |octets: usize| {
        std::thread::scope(|scope| {
            for attack in attacks {
                let address = service.address();
                scope.spawn(move || {
                    let mut peer = Peer::greeted(address);
                    attack(&mut peer, octets);
                    peer.tell("NOOP", "250 ");
                });
            }
        });
    };
    // Whatever a first time costs, it costs now.
    attack(4 * MIB);
    let before = memory(&service, "VmHWM");
    attack(FLOOD);
    let after = memory(&service, "VmHWM");
    assert!(after <= before + FLAT_KIB, "{before} KiB, then {after} KiB");

    let mut peer = Peer::greeted(service.address());
    peer.transaction();
    peer.tell("DATA", "354 ");
    peer.send(&fs::read(sample("01_inbound.eml")).unwrap());
    peer.tell(".", "250 2.0.0 report recorded");
    assert!(service.stop().success());
}
