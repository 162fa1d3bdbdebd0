//! Standard output: data alone, as tables for people or JSON for programs.

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write};

use serde::Serialize;

use crate::escape;

/// Where data goes.
pub(super) struct Output {
    writer: BufWriter<Stdout>,
    json: bool,
    terminal: bool,
    colour: bool,
}

/// How a word is set off, where colours are wanted.
#[derive(Clone, Copy)]
pub(super) enum Tone {
    Good,
    Warning,
    Bad,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            writer: BufWriter::with_capacity(1 << 16, io::stdout()),
            json,
            terminal,
            colour: terminal && !dumb && !set("NO_COLOR"),
        }
    }

    /// Whether documents are wanted.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether somebody looks on.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// One document, on a line of its own.
    pub(super) fn document(&mut self, value: &impl Serialize) -> io::Result<()> {
        escape::write_json(&mut self.writer, value)?;
        self.writer.write_all(b"\n")
    }

    /// One line of text whose values were escaped.
    pub(super) fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.writer, "{text}")
    }

    /// Octets that were escaped where they were made.
    pub(super) fn octets(&mut self, octets: &[u8]) -> io::Result<()> {
        self.writer.write_all(octets)
    }

    /// A label and its value, for screens of facts; nothing for an empty value.
    pub(super) fn fact(&mut self, label: &str, value: impl Display) -> io::Result<()> {
        let value = value.to_string();
        if value.is_empty() {
            return Ok(());
        }
        writeln!(self.writer, "{label:<14} {}", escape::plain(&value))
    }

    /// A word, coloured where that is wanted.
    pub(super) fn toned(&self, word: &str, tone: Tone) -> String {
        if !self.colour {
            return word.to_owned();
        }
        let code = match tone {
            Tone::Good => 32,
            Tone::Warning => 33,
            Tone::Bad => 31,
        };
        format!("\u{1b}[{code}m{word}\u{1b}[0m")
    }

    /// A table that is small enough to be held.
    pub(super) fn table(&mut self, header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        let mut table = Table::new(header);
        for row in rows {
            table.row(self, row.clone())?;
        }
        table.end(self).map(drop)
    }

    fn row(&mut self, cells: &[String], widths: &[usize]) -> io::Result<()> {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            line.push_str(cell);
            let pad = width.saturating_sub(cell.chars().count()) + 2;
            line.extend(std::iter::repeat_n(' ', pad));
        }
        writeln!(self.writer, "{}", line.trim_end())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Rows that are gathered to find how wide the columns are.
const BLOCK: usize = 500;

/// A table of any length: a header in capitals on a terminal, columns as wide as their widest cell
/// so far, which is looked for among many rows at a time.
pub(super) struct Table<'a> {
    header: &'a [&'a str],
    widths: Vec<usize>,
    /// Rows not yet written, escaped.
    block: Vec<Vec<String>>,
    begun: bool,
}

impl<'a> Table<'a> {
    pub(super) fn new(header: &'a [&'a str]) -> Self {
        Self {
            header,
            widths: header.iter().map(|name| name.len()).collect(),
            block: Vec::new(),
            begun: false,
        }
    }

    /// One more row.
    pub(super) fn row(&mut self, out: &mut Output, row: Vec<String>) -> io::Result<()> {
        let short = |cell: &String| escape::short(cell, escape::TABLE_CHARACTERS).into_owned();
        let cells: Vec<String> = row.iter().map(short).collect();
        for (cell, width) in cells.iter().zip(&mut self.widths) {
            *width = (*width).max(cell.chars().count());
        }
        self.block.push(cells);
        if self.block.len() == BLOCK {
            self.write(out)?;
        }
        Ok(())
    }

    /// Writes what is left; tells whether there was any row.
    pub(super) fn end(mut self, out: &mut Output) -> io::Result<bool> {
        self.write(out)?;
        Ok(self.begun)
    }

    fn write(&mut self, out: &mut Output) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        if !std::mem::replace(&mut self.begun, true) && out.terminal {
            let names: Vec<String> = self.header.iter().map(|name| name.to_uppercase()).collect();
            out.row(&names, &self.widths)?;
        }
        for row in self.block.drain(..) {
            out.row(&row, &self.widths)?;
        }
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // After a failed write the rest is unwanted: a BufWriter would try once more and panic never,
        // but a closed pipe stays closed.
        let _ = self.writer.flush();
    }
}
