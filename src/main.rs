//! The command line: parse, run, turn the error into an exit code; nothing else.

fn main() {}
