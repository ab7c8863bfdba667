//! Path modifiers (H-14; `HTTPPathModifier`).

use serde_json::Value;

use super::{http, text};

/// "A path element refers to the list of labels in the path split by the `/` separator."
pub(super) fn elements(path: &str) -> Vec<&str> {
    path.split('/').skip(1).collect()
}

/// The path after a modifier in a rule with this match. A prefix that does not match the path replaces nothing, and neither does one of a target
/// that is no path.
pub(crate) fn modified(modifier: &Value, written_match: &Value, path: &str) -> String {
    let prefix = written_match["path"]["value"].as_str().unwrap_or("/");
    let result = match text(&modifier["type"]) {
        "ReplaceFullPath" => text(&modifier["replaceFullPath"]).to_owned(),
        _ if !path.starts_with('/') || !http::is_under(prefix, path) => return path.to_owned(),
        _ => {
            // "Note that this matches the behavior of the PathPrefix match type. This matches full path elements. ... When specified, a trailing
            // `/` is ignored."
            let matched = elements(prefix.strip_suffix('/').unwrap_or(prefix)).len();
            let rest: String = elements(path).into_iter().skip(matched).map(|element| format!("/{element}")).collect();
            let replacement = text(&modifier["replacePrefixMatch"]);
            format!("{}{rest}", replacement.strip_suffix('/').unwrap_or(replacement))
        }
    };
    if result.is_empty() { "/".to_owned() } else { result }
}
