//! YAML text to documents, and the digest by which a set of files is recognised.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// Documents of one text.
const DOCUMENTS_MAX: usize = 100_000;
/// Scalars, lists and maps of one text.
const NODES_MAX: usize = 10_000_000;
/// Each of these begins, and some of them end.
const EVENTS_MAX: usize = 2 * NODES_MAX;

/// One YAML document; the items of a `List` count as documents of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Which of the text's, from 1, empty documents not counted.
    pub number: usize,
    /// The content.
    pub value: Value,
}

/// A text that is no YAML.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct YamlError {
    /// From 1; 0 if the parser does not know.
    pub line: u64,
    /// What the parser says, its place included.
    pub message: String,
}

/// The documents of a text, empty ones left out.
///
/// # Errors
/// The text is no YAML, or more than 100,000 documents or 10 million nodes; nothing of it is returned then, so that a half-written file
/// never takes effect.
pub fn parse(text: &str) -> Result<Vec<Document>, YamlError> {
    let budget = serde_saphyr::budget! { max_documents: DOCUMENTS_MAX, max_nodes: NODES_MAX, max_events: EVENTS_MAX };
    let options = serde_saphyr::options! { budget: budget };
    let values: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options).map_err(|error| YamlError {
        line: error.location().map_or(0, |location| location.line()),
        message: first_line(&error.to_string()),
    })?;
    let items = values.into_iter().filter(|value| !value.is_null()).flat_map(expand);
    Ok((1..).zip(items).map(|(number, value)| Document { number, value }).collect())
}

/// The parser goes on with an excerpt of the text, which a log line has no room for.
fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

fn expand(mut value: Value) -> Vec<Value> {
    let is_list = value.get("kind").and_then(Value::as_str).is_some_and(|kind| kind == "List");
    match value.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) if is_list => items,
        _ => vec![value],
    }
}

/// Hex SHA-256 over the files, sorted by name, each with its length, so that no two sets of files have one digest.
pub fn digest<N: AsRef<str>, B: AsRef<[u8]>>(files: impl IntoIterator<Item = (N, B)>) -> String {
    let mut files: Vec<(N, B)> = files.into_iter().collect();
    files.sort_by(|(a, _), (b, _)| a.as_ref().cmp(b.as_ref()));
    let mut hash = Sha256::new();
    for (name, content) in &files {
        for part in [name.as_ref().as_bytes(), content.as_ref()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_counted_without_the_empty_ones() {
        let documents = parse("---\nkind: A\n---\n---\nkind: B\n").expect("YAML");
        let kinds: Vec<_> = documents.iter().map(|document| (document.number, document.value["kind"].as_str())).collect();
        assert_eq!(kinds, [(1, Some("A")), (2, Some("B"))]);
    }

    #[test]
    fn a_file_may_hold_a_whole_mesh() {
        let documents = parse(&"---\nkind: A\nspec: {ports: [{port: 80}, {port: 81}]}\n".repeat(3_000)).expect("YAML");
        assert_eq!(documents.len(), 3_000);
        let error = parse(&"---\na\n".repeat(DOCUMENTS_MAX + 1)).expect_err("too many");
        assert!(error.message.contains("documents"), "{error}");
    }

    #[test]
    fn a_list_is_its_items() {
        let documents = parse("kind: List\nitems:\n- kind: A\n- kind: B\n").expect("YAML");
        assert_eq!(documents.len(), 2);
    }

    #[test]
    fn what_is_no_yaml_is_refused_with_its_line() {
        let error = parse("kind: A\nspec: [\n").expect_err("no YAML");
        assert!(error.line >= 2, "{error}");
    }

    #[test]
    fn a_digest_depends_on_names_and_contents_but_not_on_order() {
        assert_eq!(digest([("a", "1"), ("b", "2")]), digest([("b", "2"), ("a", "1")]));
        assert_ne!(digest([("a", "1b"), ("", "2")]), digest([("a", "1"), ("b", "2")]));
        assert_eq!(digest::<&str, &str>([]).len(), 64);
    }
}
