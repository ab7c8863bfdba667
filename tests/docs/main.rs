//! The documentation against the sources: what is named there exists, and what exists is named.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use tests::metrics::metrics;
use tests::pages::{self, root};

fn page(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).expect("a page")
}

/// Every source file below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    files(folder, "rs", found);
}

/// Every file of a kind below a folder.
fn files(folder: &Path, kind: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, kind, found);
        } else if path.extension().is_some_and(|extension| extension == kind) {
            found.push(path);
        }
    }
}

/// The names in the path of a source file, of folders and of itself: `["routing", "world", "status"]` of `routing/src/world/tests/status.rs`.
fn modules(file: &Path) -> Vec<String> {
    let path = file.strip_prefix(root()).expect("inside").with_extension("");
    let mut names: Vec<String> = path.iter().map(|name| name.to_str().expect("a name").to_owned()).collect();
    // What stands first is the name of a part, also where that is `tests`.
    let part = names.remove(0);
    names.retain(|name| !["src", "tests", "mod"].contains(&name.as_str()));
    names.insert(0, part);
    names
}

/// `MODULE::NAME` of every constant that is a limit.
fn limits() -> BTreeSet<String> {
    let mut files = Vec::new();
    for part in ["sidecar", "controller", "init", "routing", "cli"] {
        sources(&root().join(part).join("src"), &mut files);
    }
    files.retain(|file| file.iter().all(|name| name != "tests" && name != "tests.rs"));
    let mut names = BTreeSet::new();
    for file in files {
        let module = file.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
        let text = fs::read_to_string(&file).expect("a source file");
        for line in text.lines().map(str::trim_start) {
            let Some((_, declared)) = line.split_once("const ").filter(|(before, _)| before.is_empty() || before.starts_with("pub")) else {
                continue;
            };
            let name = declared.split(':').next().unwrap_or_default();
            if name.ends_with("_MAX") || name.ends_with("_TIMEOUT") {
                names.insert(format!("{module}::{name}"));
            }
        }
    }
    names
}

#[test]
fn every_limit_is_documented_and_every_documented_limit_exists() {
    let page = page("limits.md");
    let limits = limits();
    assert!(limits.len() > 50, "the sources are found: {limits:?}");
    let missing: Vec<&String> = limits.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "not in docs/limits.md: {missing:?}");
    let documented =
        page.split('`').skip(1).step_by(2).filter(|text| text.contains("::") && (text.ends_with("_MAX") || text.ends_with("_TIMEOUT")));
    let stale: Vec<&str> = documented.filter(|text| !text.starts_with("module::") && !limits.contains(*text)).collect();
    assert!(stale.is_empty(), "no such limit: {stale:?}");
}

/// The labels of the sidecar's own answers, as the source lists them.
fn reasons() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("routing/src/reason.rs")).expect("a source file");
    let quoted = text.split('"').skip(1).step_by(2);
    let is_label = |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    quoted.filter(is_label).map(str::to_owned).collect()
}

#[test]
fn every_reason_is_documented() {
    let reasons = reasons();
    assert!(reasons.len() > 25, "the source is understood: {reasons:?}");
    for name in ["reference.md", "troubleshooting.md"] {
        let page = page(name);
        let missing: Vec<&String> = reasons.iter().filter(|reason| !page.contains(&format!("`{reason}`"))).collect();
        assert!(missing.is_empty(), "not in docs/{name}: {missing:?}");
    }
}

#[test]
fn every_page_is_in_the_summary_and_every_link_leads_somewhere() {
    let summary = page("SUMMARY.md");
    let docs = root().join("docs");
    let mut pages = Vec::new();
    files(&docs, "md", &mut pages);
    assert!(pages.len() > 15, "sub-folders are read: {pages:?}");
    for path in pages {
        let name = path.strip_prefix(&docs).expect("inside").to_str().expect("a name").to_owned();
        assert!(name == "SUMMARY.md" || summary.contains(&format!("({name})")), "{name} is not in SUMMARY.md");
        let text = fs::read_to_string(&path).expect("a page");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            let is_local = !file.is_empty() && !file.contains("://");
            let folder = path.parent().expect("a folder");
            assert!(!is_local || folder.join(file).exists(), "{name}: {link} leads nowhere");
        }
    }
}

/// The rules of docs/semantics.md, in their order.
fn rules() -> Vec<String> {
    let parts = [("E1", 8), ("M", 27), ("H", 33), ("G", 6), ("L", 5), ("S", 12), ("C", 17), ("D", 32), ("T", 24)];
    parts.iter().flat_map(|(part, count)| (1..=*count).map(move |number| format!("{part}-{number}"))).collect()
}

/// The cells of a table's rows, but for its head.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    lines.map(|line| line.split(" | ").collect::<Vec<_>>()).filter(|cells| cells.first() != Some(&"rule")).collect()
}

#[test]
fn every_test_that_a_page_names_exists() {
    let page = page("semantics.md");
    let (rows_of_rules, rest) = page.split_once("\n## Upstream's conformance tests\n").expect("all parts");
    let (_, deviations) = rest.split_once("\n## Deliberate deviations\n").expect("all parts");
    let (rows_of_rules, deviations) = (rows(rows_of_rules), rows(deviations));
    let numbers: Vec<&str> = rows_of_rules.iter().filter_map(|cells| cells.first().copied()).collect();
    assert_eq!(numbers, rules(), "one row for each rule, in their order");
    for cells in rows_of_rules.iter().chain(&deviations) {
        assert!(cells.len() == 3 && rules().contains(&cells[0].to_owned()), "{cells:?}");
    }
    for cells in rows_of_rules {
        let named = cells[2].matches("::").count();
        assert!(named > 0 || cells[2].starts_with("*(no test)*") || cells[2].starts_with("*(not ours)*"), "{cells:?}");
    }

    let mut files = Vec::new();
    for part in ["routing", "proto", "controller", "sidecar", "init", "lab", "cli", "tests"] {
        sources(&root().join(part), &mut files);
    }
    let read = |file: &PathBuf| (modules(file), fs::read_to_string(file).expect("a source file"));
    let files: Vec<(Vec<String>, String)> = files.iter().map(read).collect();
    let named: BTreeSet<&str> =
        page.split('`').skip(1).step_by(2).filter(|text| text.contains("::") && text.split("::").all(is_name)).collect();
    assert!(named.len() > 100, "the page is understood: {named:?}");
    let is_there = |name: &str| files.iter().any(|(path, text)| has_test(path, text, name));
    let missing: Vec<&str> = named.into_iter().filter(|name| !is_there(name)).collect();
    assert!(missing.is_empty(), "no such test: {missing:?}");
}

/// Whether it is in snake case.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Whether a source file with these names in its path has this test: the path ends with the modules, and the function has an attribute.
fn has_test(path: &[String], text: &str, name: &str) -> bool {
    let mut modules: Vec<&str> = name.split("::").collect();
    let function = format!("fn {}(", modules.pop().unwrap_or_default());
    let tail = path.len().checked_sub(modules.len()).and_then(|start| path.get(start..));
    let is_test = |before: &str| before.trim_end().trim_end_matches("async").trim_end().ends_with(']');
    tail.is_some_and(|tail| tail == modules) && text.split_once(&function).is_some_and(|(before, _)| is_test(before))
}

#[test]
fn the_page_of_metrics_is_what_the_programs_have() {
    let sidecar = metrics(&sidecar::sample_metrics().expect("metrics"));
    let controller = metrics(&controller::admin::sample_metrics().expect("metrics"));
    assert!(sidecar.len() > 15 && controller.len() > 10, "{sidecar:?} {controller:?}");
    let made = tests::metrics::page(&sidecar, &controller);
    let place = root().join("target/metrics.md");
    if page("metrics.md") != made {
        fs::write(&place, made).expect("written");
        panic!("docs/metrics.md is older than the programs: replace it by {}", place.display());
    }
}

/// The commands of the program in a page's sentences.
fn inline(text: &str) -> Vec<&str> {
    let sentences = text.split("```").step_by(2);
    let quoted = sentences.flat_map(|part| part.split('`').skip(1).step_by(2));
    quoted.filter(|text| text.starts_with("isthmus ") && !text.contains('\n')).collect()
}

#[test]
fn every_command_of_the_program_that_a_page_shows_is_one() {
    let program = cli::config::Config::command();
    let mut named = 0;
    for page in pages::all() {
        let text = fs::read_to_string(root().join(&page)).expect("a page");
        for command in inline(&text) {
            let words: Vec<&str> = command.split(' ').collect();
            let subcommand = program.find_subcommand(words[1]);
            assert!(subcommand.is_some(), "{page}: {command}: no such command");
            let is_flag = |name: &str| subcommand.is_some_and(|sub| sub.get_arguments().any(|argument| argument.get_long() == Some(name)));
            let flags =
                words.iter().filter_map(|word| word.strip_prefix("--")).map(|flag| flag.split(['=', ']']).next().unwrap_or_default());
            let unknown: Vec<&str> = flags.filter(|flag| !is_flag(flag) && *flag != "help").collect();
            assert!(unknown.is_empty(), "{page}: {command}: no such flags: {unknown:?}");
            named += 1;
        }
    }
    assert!(named >= 20, "the pages are understood: {named}");
}

#[test]
fn every_command_of_a_code_block_is_run_somewhere() {
    let read = |path: &str| fs::read_to_string(root().join(path)).expect("a file");
    let (gate, makefile) = (read(".ci/run"), read("Makefile"));
    // `make test` and `make cluster-down` are parts of what the gate names.
    let is_run = |target: &str| [format!("make {target}\n"), format!("make {target}'")].iter().any(|line| gate.contains(line.as_str()));
    let mut runners: Vec<&str> = pages::ON_KUBERNETES.iter().chain(&pages::OF_MAKE).copied().chain([pages::IN_NAMESPACES]).collect();
    for page in pages::all() {
        let mut has_commands = false;
        for block in pages::blocks(&page) {
            match block.language.as_str() {
                "sh" | "console" => has_commands = true,
                "yaml" | "text" | "promql" => continue,
                other => panic!("{page}: a code block of the language {other:?}: {}", block.text),
            }
            for command in pages::commands(&block) {
                if let Some(target) = command.typed.strip_prefix("make ") {
                    let target = target.split(' ').next().unwrap_or_default();
                    let whole = makefile.lines().find(|line| line.starts_with("check:")).expect("the gate's target");
                    assert!(is_run(target) || whole.split(' ').any(|part| part == target), "{page}: nobody runs make {target}");
                } else {
                    assert!(!pages::OF_MAKE.contains(&page.as_str()), "{page}: nobody runs {}", command.typed);
                }
            }
        }
        let position = runners.iter().position(|name| *name == page);
        assert_eq!(has_commands, position.is_some(), "{page}: whether its commands are run");
        if let Some(position) = position {
            runners.remove(position);
        }
    }
    assert!(runners.is_empty(), "pages without commands, or none: {runners:?}");
}
