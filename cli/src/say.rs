//! Standard output, whose reader may go at any time.

use std::io::{ErrorKind, Write as _};
use std::process::exit;

/// Prints, in colour on a terminal (`NO_COLOR`, `CLICOLOR_FORCE`); where nobody reads any more the program has done what it was asked.
pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    crate::progress::clear();
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => exit(0),
        said => Ok(said?),
    }
}
