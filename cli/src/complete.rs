//! Completion of `kubectl isthmus ...`: kubectl runs `kubectl_complete-isthmus` with the words so far, the last of which is to be completed, and reads
//! candidates a line and a directive, as programs made with Cobra answer each other.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;

use clap::CommandFactory as _;

use crate::config::Config;
use crate::say::pass;

/// The name under which the program answers kubectl.
pub const NAME: &str = "kubectl_complete-isthmus";

/// Cobra's `ShellCompDirectiveNoSpace`: the word goes on behind a candidate.
const NO_SPACE: u8 = 2;
/// Cobra's `ShellCompDirectiveNoFileComp`: no file names beside the candidates.
const NO_FILES: u8 = 4;

/// Whether the program was called by kubectl for a completion.
#[must_use]
pub fn is_asked(program: &Path) -> bool {
    program.file_name().is_some_and(|name| name == NAME)
}

/// Answers.
///
/// # Errors
/// The folder that a path begins with cannot be read.
pub fn run(words: Vec<OsString>) -> anyhow::Result<()> {
    pass(answer(words)?.as_bytes())
}

/// Candidates with what they mean behind a tab, then the directive.
fn answer(words: Vec<OsString>) -> anyhow::Result<String> {
    let mut words: Vec<OsString> = std::iter::once("isthmus".into()).chain(words).collect();
    if words.len() == 1 {
        words.push(OsString::new());
    }
    let last = words.len() - 1;
    // Where the folder is gone, relative paths have no candidates; everything else has.
    let folder = std::env::current_dir().ok();
    let candidates = clap_complete::engine::complete(&mut Config::command(), words, last, folder.as_deref())?;
    let (mut text, mut directive) = (String::new(), NO_FILES);
    for candidate in candidates.iter().filter(|candidate| !candidate.is_hide_set()) {
        let value = candidate.get_value().to_string_lossy();
        if value.ends_with(['/', '=']) {
            directive |= NO_SPACE;
        }
        let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
        writeln!(text, "{value}\t{}", help.lines().next().unwrap_or_default())?;
    }
    writeln!(text, ":{directive}")?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(words: &[&str]) -> Vec<String> {
        let answer = answer(words.iter().map(OsString::from).collect()).expect("an answer");
        answer.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn subcommands_flags_and_values_are_completed() {
        assert!(values(&[]).contains(&"explain".to_owned()));
        assert_eq!(values(&["ex"]), ["explain", ":4"]);
        assert_eq!(values(&["status", "--output", "j"]), ["json", ":4"]);
        assert!(values(&["tap", "--st"]).contains(&"--status".to_owned()));
        assert!(!values(&[""]).contains(&"hold".to_owned()), "what is hidden stays so");
        assert_eq!(values(&["nothing-like-it"]), [":4"]);
    }

    #[test]
    fn a_folder_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("mine")).expect("a folder");
        let begun = folder.path().join("mi").to_str().expect("a name").to_owned();
        let said = values(&["lint", &begun]);
        assert!(said[0].ends_with("/mine/") && said[1] == ":6", "{said:?}");
    }
}
