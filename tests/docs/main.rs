//! The documentation against the sources: what is named there exists, and what exists is named.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).expect("a page")
}

/// Every source file below a folder, but for those of tests.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && path.file_stem().is_some_and(|stem| stem != "tests") {
            found.push(path);
        }
    }
}

/// `MODULE::NAME` of every constant that is a limit.
fn limits() -> BTreeSet<String> {
    let mut files = Vec::new();
    for part in ["sidecar", "controller", "init", "routing"] {
        sources(&root().join(part).join("src"), &mut files);
    }
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
    let text = fs::read_to_string(root().join("sidecar/src/reason.rs")).expect("a source file");
    let quoted = text.split('"').skip(1).step_by(2);
    let is_label = |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    quoted.filter(is_label).map(str::to_owned).collect()
}

#[test]
fn every_reason_is_documented() {
    let page = page("reference.md");
    let reasons = reasons();
    assert!(reasons.len() > 25, "the source is understood: {reasons:?}");
    let missing: Vec<&String> = reasons.iter().filter(|reason| !page.contains(&format!("`{reason}`"))).collect();
    assert!(missing.is_empty(), "not in docs/reference.md: {missing:?}");
}

#[test]
fn every_page_is_in_the_summary_and_every_link_leads_somewhere() {
    let summary = page("SUMMARY.md");
    for entry in fs::read_dir(root().join("docs")).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        if !name.ends_with(".md") {
            continue;
        }
        assert!(name == "SUMMARY.md" || summary.contains(&format!("({name})")), "{name} is not in SUMMARY.md");
        let text = fs::read_to_string(&path).expect("a page");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            let is_local = !file.is_empty() && !file.contains("://");
            assert!(!is_local || root().join("docs").join(file).exists(), "{name}: {link} leads nowhere");
        }
    }
}
