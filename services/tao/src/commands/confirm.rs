//! Asks before something that can't be undone.

use std::io::{BufRead as _, IsTerminal as _};

use super::failure::Failure;

/// Whether to go on: told by a flag, or by a person at a terminal. Scripts must say so.
pub fn confirm(what: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::bad_input(format!("{what}: say --yes to have it done")));
    }
    eprint!("{what}. Type yes to go on: ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(Failure::other)?;
    if answer.trim() == "yes" { Ok(()) } else { Err(Failure::other("nothing was done")) }
}
