//! A disk that loses power, fills up and fails: two C libraries that are preloaded into a program.
//!
//! What they do is told at the head of `powercut.c` and `faults.c`. A [`Disk`] is a directory that a
//! program under test works in; after the program was killed, [`Disk::cut_power`] leaves in it what
//! was synced and nothing else.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

/// A directory of a program under test.
pub(crate) struct Disk {
    root: TempDir,
    powercut: bool,
}

impl Disk {
    /// A disk that fails on request.
    pub(crate) fn new() -> Self {
        let root = TempDir::new().unwrap();
        fs::create_dir(root.path().join("disk")).unwrap();
        Self {
            root,
            powercut: false,
        }
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

    /// Puts the libraries before a program.
    pub(crate) fn attach<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let mut preload = OsString::from(library("faults"));
        command
            .env("FAULTS_DIR", self.path())
            .env("FAULTS_CONTROL", self.root.path().join("control"));
        if self.powercut {
            preload.push(" ");
            preload.push(library("powercut"));
            command
                .env("POWERCUT_DIR", self.path())
                .env("POWERCUT_SHADOW", self.shadow());
        }
        command.env("LD_PRELOAD", preload)
    }

    /// What fails from now on, also in a program that runs; the lines are told in `faults.c`. Nothing
    /// fails after an empty text.
    pub(crate) fn fail(&self, lines: &str) {
        let control = self.root.path().join("control");
        let next = self.root.path().join("control.next");
        fs::write(&next, lines).unwrap();
        fs::rename(next, control).unwrap();
    }

    /// The power is gone. The program has been killed before.
    pub(crate) fn cut_power(&self) {
        let disk = self.path();
        let kept = self.root.path().join("kept");
        let root = self.shadow().join("dirs").join(inode(&disk).to_string());
        copy(&root, &kept);
        fs::remove_dir_all(&disk).unwrap();
        fs::remove_dir_all(self.shadow()).unwrap();
        fs::rename(kept, disk).unwrap();
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

/// Compiles a library, once.
fn library(name: &str) -> &'static Path {
    static POWERCUT: OnceLock<PathBuf> = OnceLock::new();
    static FAULTS: OnceLock<PathBuf> = OnceLock::new();
    let built = if name == "powercut" {
        &POWERCUT
    } else {
        &FAULTS
    };
    built.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/preload/{name}.c"));
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let own = target.join(format!("{name}.{}.so", std::process::id()));
        let output = Command::new("cc")
            .args([
                "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o",
            ])
            .args([&own, &source])
            .arg("-ldl")
            .output()
            .expect("the C compiler `cc` is needed to build tests/preload");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {errors}", source.display());
        // Another run of the tests may load it meanwhile: it is replaced whole.
        let built = target.join(format!("{name}.so"));
        fs::rename(own, &built).unwrap();
        built
    })
}
