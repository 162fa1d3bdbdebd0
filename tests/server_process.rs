//! What the service manager gives the process: file descriptors, few or passed.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, prlimit};

use crate::cli_serving::{Site, TENANT};

/// Connects and reads the greeting.
fn greeted(address: std::net::SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut greeting = [0; 256];
    let read = stream.read(&mut greeting).unwrap();
    String::from_utf8_lossy(&greeting[..read]).into_owned()
}

/// No file descriptor is left for a connection: idle ones give way, and the service goes on.
#[test]
fn running_out_of_descriptors_is_survived() {
    let site = Site::new(TENANT);
    let mut service = site.serve();
    let raw = service.pid().as_raw_nonzero();
    let open = fs::read_dir(format!("/proc/{raw}/fd")).unwrap().count() as u64;
    let few = Rlimit {
        current: Some(open + 5),
        maximum: Some(open + 5),
    };
    prlimit(Some(service.pid()), Resource::Nofile, few).unwrap();
    let idle: Vec<_> = (0..30)
        .map(|_| TcpStream::connect(service.address()).unwrap())
        .collect();
    service.wait_for("no connection can be accepted");
    let greeting = greeted(service.address());
    assert!(greeting.starts_with("220 "), "{greeting}");
    drop(idle);
    assert!(service.stop().success());
}

/// The socket that systemd holds is used, not a new one: no connection is lost in a restart.
#[test]
fn passed_sockets_are_served() {
    let site = Site::new(TENANT);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let waiting = TcpStream::connect(address).unwrap();
    // Passed as systemd does: descriptor 3, and the process that it is for is named.
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"";
    let serve = site.command();
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(serve.get_program());
    command.args(serve.get_args()).arg("serve");
    command.stdin(OwnedFd::from(listener));
    let service = site.started(command);
    assert_eq!(service.address(), address);
    let mut greeting = [0; 4];
    (&waiting).read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 ", "who came before the start is served");
    assert!(service.stop().success());
}
