//! Passwords on the command line: read from standard input or made up, never taken from a flag, never logged.

use crate::failure::{Failure, Outcome};
use atoll_node::Node;
use std::io::BufRead;

/// Easy to read aloud: no 0, o, 1, l, i.
const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz23456789x";
const GROUPS: usize = 4;
const GROUP: usize = 5;

/// About 100 random bits, as `abcde-fghjk-mnpqr-stuvw`.
pub fn make(node: &Node) -> String {
    let bytes: [u8; GROUPS * GROUP] = node.random();
    let letters: Vec<char> =
        bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect();
    let groups: Vec<String> = letters.chunks(GROUP).map(|group| group.iter().collect()).collect();
    groups.join("-")
}

/// The password to use, and the same again if it was made up and must be shown.
pub fn or_made(node: &Node, given: Option<String>) -> (String, Option<String>) {
    match given {
        Some(password) => (password, None),
        None => {
            let made = make(node);
            (made.clone(), Some(made))
        }
    }
}

/// The first line of standard input.
pub fn read_stdin() -> Outcome<String> {
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Failure::failed(format!("cannot read the password: {error}")))?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(Failure::usage("there is no password on standard input"));
    }
    Ok(password.to_owned())
}
