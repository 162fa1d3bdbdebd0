//! A disk that loses power, fills up, fails and kills: a C library that is preloaded into a program.
//!
//! What it does is told at the head of `disk.c`. A [`Disk`] is a directory that a program under test
//! works in; after the program was killed, [`Disk::cut_power`] leaves in it what was synced and
//! nothing else.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use clawback::proc::PROC_VARIABLE;
use tempfile::TempDir;

/// A directory of a program under test.
pub(crate) struct Disk {
    root: TempDir,
    powercut: bool,
    /// Starts of the machine.
    boots: AtomicU32,
}

impl Disk {
    /// A disk that fails on request.
    pub(crate) fn new() -> Self {
        let root = TempDir::new().unwrap();
        fs::create_dir(root.path().join("disk")).unwrap();
        let disk = Self {
            root,
            powercut: false,
            boots: AtomicU32::new(0),
        };
        disk.boot();
        disk
    }

    /// One that can lose power too.
    pub(crate) fn with_power_cuts() -> Self {
        Self {
            powercut: true,
            ..Self::new()
        }
    }

    /// Where the program works.
    pub(crate) fn path(&self) -> PathBuf {
        self.root.path().join("disk")
    }

    /// Puts the library before a program.
    pub(crate) fn attach<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        if self.powercut {
            command.env("DISK_SHADOW", self.shadow());
        }
        command
            .env("DISK_DIR", self.path())
            .env("DISK_CONTROL", self.control())
            .env(PROC_VARIABLE, self.proc())
            .env("LD_PRELOAD", library())
    }

    /// What fails from now on, also in a program that runs; the lines are told in `disk.c`. Nothing
    /// fails after an empty text.
    pub(crate) fn fail(&self, lines: &str) {
        let next = self.root.path().join("control.next");
        fs::write(&next, lines).unwrap();
        fs::rename(next, self.control()).unwrap();
    }

    /// How many calls have failed so far.
    pub(crate) fn failed(&self) -> u64 {
        let met = self.control().with_extension("met");
        fs::metadata(met).map_or(0, |facts| facts.len())
    }

    /// The power is gone, and the machine starts again. The program has been killed before.
    pub(crate) fn cut_power(&self) {
        let disk = self.path();
        let kept = self.root.path().join("kept");
        let root = self.shadow().join("dirs").join(inode(&disk).to_string());
        copy(&root, &kept);
        fs::remove_dir_all(&disk).unwrap();
        fs::remove_dir_all(self.shadow()).unwrap();
        fs::rename(kept, disk).unwrap();
        self.boot();
    }

    /// The kernel gives each start of the machine another id.
    fn boot(&self) {
        let boot = self.boots.fetch_add(1, Ordering::Relaxed);
        let random = self.proc().join("sys/kernel/random");
        fs::create_dir_all(&random).unwrap();
        fs::write(random.join("boot_id"), format!("boot-{boot}\n")).unwrap();
    }

    fn control(&self) -> PathBuf {
        self.root.path().join("control")
    }

    fn proc(&self) -> PathBuf {
        self.root.path().join("proc")
    }

    fn shadow(&self) -> PathBuf {
        self.root.path().join("shadow")
    }
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

/// Copies a directory, symbolic links to directories followed.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match fs::metadata(&from) {
            Ok(facts) if facts.is_dir() => copy(&from, &to),
            Ok(_) => drop(fs::copy(from, to).unwrap()),
            // A directory that was removed, and its parent not synced since.
            Err(_) => fs::create_dir(to).unwrap(),
        }
    }
}

/// The library, compiled once.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/preload/disk.c");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let own = target.join(format!("disk.{}.so", std::process::id()));
        let output = Command::new("cc")
            .args([
                "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o",
            ])
            .args([&own, &source])
            .output()
            .expect("the C compiler `cc` is needed to build tests/preload");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {errors}", source.display());
        // Another run of the tests may load it meanwhile: it is replaced whole.
        let built = target.join("disk.so");
        fs::rename(own, &built).unwrap();
        built
    })
}
