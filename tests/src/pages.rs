//! The documentation's code blocks, and who runs the commands in them.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// Pages whose commands are typed where two Kubernetes clusters are, in this order: `make cluster`, case `pages`.
pub const ON_KUBERNETES: [&str; 7] = [
    "docs/install.md",
    "README.md",
    "docs/how-to/canary.md",
    "docs/how-to/failover.md",
    "docs/how-to/drain-a-cluster.md",
    "docs/how-to/debug.md",
    "manifests/observability/README.md",
];
/// The page whose commands are typed in network namespaces: netns `demo::the_commands_of_the_quick_start_show_what_it_says`.
pub const IN_NAMESPACES: &str = "docs/quick-start.md";
/// Pages that name nothing but targets of the Makefile.
pub const OF_MAKE: [&str; 2] = ["docs/conformance.md", "docs/protocols.md"];

/// A code block of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// `sh` has commands, `console` commands and what they say, `yaml` objects, `promql` a query, `text` anything else.
    pub language: String,
    /// Without the fences.
    pub text: String,
}

/// The project's root.
///
/// # Panics
/// The source has none.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Every page of the documentation, relative to the [`root`].
///
/// # Panics
/// They cannot be read.
#[must_use]
pub fn all() -> Vec<String> {
    let mut names = vec!["README.md".to_owned(), "manifests/observability/README.md".to_owned()];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                names.push(path.strip_prefix(root()).expect("inside").to_str().expect("a name").to_owned());
            }
        }
    }
    names
}

/// The code blocks of a page, in their order.
///
/// # Panics
/// There is no such page.
#[must_use]
pub fn blocks(page: &str) -> Vec<Block> {
    let text = fs::read_to_string(root().join(page)).expect("a page");
    let fenced = text.split("```").skip(1).step_by(2);
    // What has no line of its own for the language is code inside a sentence.
    let blocks = fenced.filter_map(|block| block.split_once('\n'));
    blocks.map(|(language, text)| Block { language: language.to_owned(), text: text.to_owned() }).collect()
}

/// A command, and what the page says that it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// What is typed; several lines where one ends in a backslash or a brace is open.
    pub typed: String,
    /// The remark behind it.
    pub remark: String,
    /// The lines shown below it; none where the page shows none.
    pub shown: Vec<String>,
}

/// The commands of a block of `sh` or `console`.
#[must_use]
pub fn commands(block: &Block) -> Vec<Command> {
    let mut commands: Vec<Command> = Vec::new();
    let mut is_open = false;
    for line in block.text.lines() {
        let typed = if block.language == "console" { line.strip_prefix("$ ") } else { Some(line) };
        match (typed, commands.last_mut()) {
            (Some(typed), Some(last)) if is_open => {
                last.typed.push('\n');
                last.typed.push_str(typed);
            }
            (Some(typed), _) => {
                let (typed, remark) = typed.split_once(" #").unwrap_or((typed, ""));
                commands.push(Command { typed: typed.trim_end().to_owned(), remark: remark.trim().to_owned(), shown: Vec::new() });
            }
            (None, Some(last)) => last.shown.push(line.to_owned()),
            (None, None) => {}
        }
        let last = commands.last().map(|command| command.typed.as_str()).unwrap_or_default();
        is_open = last.ends_with('\\') || last.matches('{').count() > last.matches('}').count();
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands_of(language: &str, text: &str) -> Vec<Command> {
        commands(&Block { language: language.to_owned(), text: text.to_owned() })
    }

    #[test]
    fn commands_go_on_behind_a_backslash_and_have_remarks() {
        let found = commands_of("sh", "one -a \\\n  -b\n{ two\n  three; }\n");
        let typed: Vec<&str> = found.iter().map(|command| command.typed.as_str()).collect();
        assert_eq!(typed, ["one -a \\\n  -b", "{ two\n  three; }"]);
        assert_eq!(commands_of("sh", "one   # 200, two\n")[0].remark, "200, two");
    }

    #[test]
    fn what_a_console_shows_belongs_to_the_command_above() {
        let found = commands_of("console", "$ one\nfirst\nsecond\n$ two\n");
        assert_eq!(found[0].shown, ["first", "second"]);
        assert!(found[1].typed == "two" && found[1].shown.is_empty());
    }
}
