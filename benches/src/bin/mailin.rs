//! The peer: mailin-embedded, each message written and `fdatasync`ed before its 250. `mailin ADDR FOLDER CERT KEY`

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mailin_embedded::{Handler, Response, Server, SslConfig, response};

#[derive(Clone)]
struct Keep {
    folder: PathBuf,
    next: Arc<AtomicU64>,
    content: Vec<u8>,
}

impl Handler for Keep {
    fn data(&mut self, line: &[u8]) -> io::Result<()> {
        self.content.extend_from_slice(line);
        Ok(())
    }

    fn data_end(&mut self) -> Response {
        // One file for each of 64 slots, so that the folder does not grow with the run.
        let slot = self.next.fetch_add(1, Ordering::Relaxed) % 64;
        let kept = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join(slot.to_string()))
            .and_then(|mut file| {
                file.write_all(&self.content)?;
                file.sync_data()
            });
        self.content.clear();
        if kept.is_ok() {
            response::OK
        } else {
            response::INTERNAL_ERROR
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let keep = Keep {
        folder: arguments[2].clone().into(),
        next: Arc::default(),
        content: Vec::new(),
    };
    let mut server = Server::new(keep);
    server
        .with_name("localhost")
        .with_num_threads(256)
        .with_addr(&arguments[1])
        .unwrap();
    let (cert_path, key_path) = (arguments[3].clone(), arguments[4].clone());
    server
        .with_ssl(SslConfig::SelfSigned {
            cert_path,
            key_path,
        })
        .unwrap();
    server.serve().unwrap();
}
