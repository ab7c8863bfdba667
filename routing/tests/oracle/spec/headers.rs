//! Header modifiers (H-12; `HTTPHeaderFilter`).

use serde_json::Value;

use super::{once, text};

/// Header lines in their order, names in lower case.
pub(crate) type Lines = Vec<(String, String)>;

/// What the header fields are after a modifier. Host is no field but the authority: see [`authority`].
pub(crate) fn modified(modifier: &Value, lines: &Lines) -> Lines {
    let mut lines: Lines = lines.iter().map(|(name, value)| (name.to_lowercase(), value.clone())).collect();
    // "Remove the given header(s) from the HTTP request before the action. ... header names are case-insensitive".
    for name in modifier["remove"].as_array().into_iter().flatten() {
        lines.retain(|(other, _)| !other.eq_ignore_ascii_case(text(name)));
    }
    // "Set overwrites the request with the given header (name, value) before the action."
    for entry in once(&modifier["set"], true) {
        let name = text(&entry["name"]).to_lowercase();
        if name != "host" {
            lines.retain(|(other, _)| *other != name);
            lines.push((name, text(&entry["value"]).to_owned()));
        }
    }
    // "Add adds the given header(s) (name, value) to the request before the action. It appends to any existing values associated with the header
    // name."
    for entry in once(&modifier["add"], true) {
        lines.push((text(&entry["name"]).to_lowercase(), text(&entry["value"]).to_owned()));
    }
    lines
}

/// The authority that a modifier asks for.
pub(crate) fn authority(modifier: &Value) -> Option<&str> {
    let set = once(&modifier["set"], true);
    set.into_iter().find(|entry| text(&entry["name"]).eq_ignore_ascii_case("host")).map(|entry| text(&entry["value"]))
}

/// "one action per name per filter, else config invalid; a name twice in a list: first wins"; Host can be set alone (H-12).
pub(crate) fn is_valid(modifier: &Value) -> bool {
    let mut names: Vec<String> = Vec::new();
    for list in ["set", "add"] {
        names.extend(once(&modifier[list], true).into_iter().map(|entry| text(&entry["name"]).to_lowercase()));
    }
    names.extend(modifier["remove"].as_array().into_iter().flatten().map(|name| text(name).to_lowercase()));
    let is_repeated = names.iter().enumerate().any(|(index, name)| names[..index].contains(name));
    let hosts = names.iter().filter(|name| *name == "host").count();
    !is_repeated && hosts == usize::from(authority(modifier).is_some())
}
