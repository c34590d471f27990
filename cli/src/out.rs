//! What is told to people and programs. A reader that went away (`atoll openapi | head`) is no failure and ends
//! nothing; an output that cannot be written (a full disk) is told at the end. Never panics, as `println!` would.

use crate::failure::{Failure, Outcome};
use std::fmt::Arguments;
use std::io::{ErrorKind, Write};
use std::sync::OnceLock;

/// The first failure that is worth a word.
static FAILED: OnceLock<String> = OnceLock::new();

/// Text on standard output.
macro_rules! put {
    ($($text:tt)*) => { $crate::out::put(format_args!($($text)*)) };
}

/// A line on standard output.
macro_rules! say {
    () => { $crate::out::put(format_args!("\n")) };
    ($($text:tt)*) => { $crate::out::say(format_args!($($text)*)) };
}

/// A line on standard error.
macro_rules! complain {
    ($($text:tt)*) => { $crate::out::complain(format_args!($($text)*)) };
}

pub fn put(text: Arguments<'_>) {
    note(std::io::stdout().lock().write_fmt(text));
}

pub fn say(text: Arguments<'_>) {
    note(writeln!(std::io::stdout().lock(), "{text}"));
}

/// There is nobody left to be told of a failure here.
pub fn complain(text: Arguments<'_>) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn note(written: std::io::Result<()>) {
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        let _ = FAILED.set(format!("cannot write to standard output: {error}"));
    }
}

/// Whether all that was to be printed was.
pub fn finish() -> Outcome {
    note(std::io::stdout().lock().flush());
    FAILED.get().map_or(Ok(()), |why| Err(Failure::failed(why)))
}
