//! Standard output, whose reader may go at any time.

use std::io::{self, ErrorKind, Write};
use std::process::exit;

use crate::progress;

/// Prints, in colour on a terminal (`NO_COLOR`, `CLICOLOR_FORCE`); where nobody reads any more the program has done what it was asked.
pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    write(anstream::stdout().lock(), text.as_bytes())
}

/// As [`say`], of what somebody else wrote: as it is, colours or not.
pub(crate) fn pass(bytes: &[u8]) -> anyhow::Result<()> {
    write(io::stdout().lock(), bytes)
}

fn write(mut out: impl Write, bytes: &[u8]) -> anyhow::Result<()> {
    progress::clear();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => exit(0),
        said => Ok(said?),
    }
}
