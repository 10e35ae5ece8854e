//! Asks the person at the terminal; who is not at one must say it with a flag.

use std::io::{self, BufRead, IsTerminal, Write};

use super::failure::Failure;

/// Whether there is somebody to ask.
pub(super) fn is_possible() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks to go on.
///
/// # Errors
/// The answer is no; or nobody can be asked, and `--yes` was not said.
pub(super) fn confirm(explanation: &str, question: &str) -> Result<(), Failure> {
    if !is_possible() {
        let text = format!("{explanation}\nthere is no terminal to ask at: say --yes if that is meant");
        return Err(Failure::usage("NEEDS_YES", text));
    }
    if yes_or_no(explanation, question, false)? {
        return Ok(());
    }
    Err(Failure::local("NOT_CONFIRMED", "nothing was changed".to_owned()))
}

/// Asks a question; an empty answer is the default.
///
/// # Errors
/// The terminal is gone.
pub(super) fn yes_or_no(explanation: &str, question: &str, default: bool) -> Result<bool, Failure> {
    let failed = |error: io::Error| Failure::local("TERMINAL", format!("ask at the terminal: {error}"));
    let choice = if default { "[Y/n]" } else { "[y/N]" };
    eprintln!("{explanation}");
    loop {
        eprint!("{question} {choice} ");
        io::stderr().flush().map_err(failed)?;
        let mut line = String::new();
        if io::stdin().lock().read_line(&mut line).map_err(failed)? == 0 {
            return Err(Failure::local("NOT_CONFIRMED", "no answer: nothing was changed".to_owned()));
        }
        match line.trim().to_ascii_lowercase().as_str() {
            "" => return Ok(default),
            "y" | "yes" => return Ok(true),
            "n" | "no" => return Ok(false),
            _ => eprintln!("please answer y or n"),
        }
    }
}
