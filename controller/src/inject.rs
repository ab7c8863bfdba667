//! What injection makes of a pod: containers, volumes and an annotation, or the reason why nothing of it is done.
//!
//! Invariants: nothing of the user's is changed; injecting twice is injecting once; a pod is refused only for what its author can mend.

mod containers;

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value, json};

use containers::{INIT, SIDECAR, TOKEN_VOLUME, VOLUME};

/// The sidecar's uid, whose connections interception exempts.
pub const SIDECAR_UID: i64 = 2102;
/// The uid of `isthmus-init`, which may write the pod's interception rules.
pub const INIT_UID: i64 = 2103;
/// Label of a namespace: `enabled` or `disabled`.
pub const NAMESPACE_LABEL: &str = "isthmus.dev/injection";
/// Annotation (or label) of a pod: `true` or `false`, whatever the namespace says.
pub const POD_ANNOTATION: &str = "isthmus.dev/inject";
/// What injection leaves on a pod: version and mode.
pub const STATUS_ANNOTATION: &str = "isthmus.dev/status";
/// How a pod's connections are intercepted: `exact` or `ranges`.
const INTERCEPTION_ANNOTATION: &str = "isthmus.dev/interception";
/// Begins the names of everything that is said to the mesh;
const PREFIX: &str = "isthmus.dev/";
/// and of what is said to a lab.
const LAB_PREFIX: &str = "isthmus.dev/lab-";
/// Everything that is read of a pod,
const ANNOTATIONS: [&str; 14] = [
    POD_ANNOTATION,
    STATUS_ANNOTATION,
    INTERCEPTION_ANNOTATION,
    "isthmus.dev/existing",
    "isthmus.dev/access-log",
    "isthmus.dev/traces",
    "isthmus.dev/cpu-request",
    "isthmus.dev/cpu-limit",
    "isthmus.dev/memory-request",
    "isthmus.dev/memory-limit",
    "isthmus.dev/init-cpu-request",
    "isthmus.dev/init-cpu-limit",
    "isthmus.dev/init-memory-request",
    "isthmus.dev/init-memory-limit",
];
/// and that only with exact interception.
const EXACT_ANNOTATIONS: [&str; 2] = ["isthmus.dev/fail", "isthmus.dev/large-segments"];

/// What the one who runs the mesh decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this cluster in the ClusterSet.
    pub cluster: String,
    /// Image of `isthmus-sidecar`.
    pub sidecar_image: String,
    /// Image of `isthmus-init`.
    pub init_image: String,
    /// Where sidecars find the controller.
    pub controller: String,
    /// The CA of the controller's certificate, PEM.
    pub ca: String,
    /// Whether the cluster has native sidecars (Kubernetes 1.29 and later).
    pub native: bool,
    /// Ranges of VIPs, for pods whose interception is by ranges.
    pub ranges: Vec<String>,
    /// Where sidecars send spans; none: nowhere.
    pub traces: Option<Traces>,
}

/// Where spans go.
#[derive(Clone, Debug, PartialEq)]
pub struct Traces {
    /// The collector.
    pub endpoint: String,
    /// Share of the traces that begin at a sidecar which are sampled.
    pub sampling: f64,
}

impl Traces {
    /// Of a command line.
    #[must_use]
    pub fn of(endpoint: Option<&String>, sampling: f64) -> Option<Self> {
        endpoint.filter(|endpoint| !endpoint.is_empty()).map(|endpoint| Self { endpoint: endpoint.clone(), sampling })
    }
}

/// How a pod's connections are intercepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    /// Exactly the VIPs that have routes, kept up to date by a native sidecar.
    Exact,
    /// Whole ranges, set up once.
    Ranges,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Ranges => "ranges",
        }
    }
}

/// Why a pod is left as it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Skipped {
    /// Nobody asked for it.
    NotAsked,
    /// The pod says no.
    OptedOut,
    /// Interception would be the node's.
    HostNetwork,
    /// There is no nf_tables.
    Windows,
    /// Ranges are needed and not known.
    NoRanges,
}

impl Skipped {
    /// Whether somebody who asked for a sidecar will miss it.
    #[must_use]
    pub fn is_missed(&self) -> bool {
        matches!(self, Self::NoRanges)
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAsked => "neither the pod nor its namespace asks for it",
            Self::OptedOut => "the pod says no",
            Self::HostNetwork => "it is in the host's network",
            Self::Windows => "it is for Windows",
            Self::NoRanges => "interception by ranges is needed, and no range is known: set --vip-range on the controller",
        })
    }
}

/// Why a pod cannot be injected as it is.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refused {
    /// Interception would exempt the application.
    #[error("{place}: {SIDECAR_UID} is the uid of the Isthmus sidecar; connections of that uid pass routes by. Choose another one")]
    SameUid {
        /// Where the uid is written.
        place: String,
    },
    /// An annotation has a value that means nothing.
    #[error("annotation {name}: {value:?} is not one of {allowed}")]
    Annotation {
        /// Which.
        name: &'static str,
        /// What it says.
        value: String,
        /// What it could say.
        allowed: &'static str,
    },
}

/// What comes of a pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The pod with the sidecar.
    Injected {
        /// As it is now.
        pod: Value,
        /// What its author wrote that has no effect.
        warnings: Vec<String>,
    },
    /// The pod stays as it is.
    Skipped(Skipped),
}

/// Injects a pod, or says why not.
///
/// # Errors
/// Something the pod's author has to mend.
pub fn inject(pod: &Value, namespace_labels: &BTreeMap<String, String>, settings: &Settings) -> Result<Outcome, Refused> {
    if let Some(skipped) = skipped(pod, namespace_labels)? {
        return Ok(Outcome::Skipped(skipped));
    }
    let notes = Notes::of(pod);
    same_uid(pod)?;
    let asked = notes.one_of(INTERCEPTION_ANNOTATION, &["exact", "ranges"], "exact, ranges")?;
    let mode = if settings.native && asked != Some("ranges") { Mode::Exact } else { Mode::Ranges };
    if mode == Mode::Ranges && settings.ranges.is_empty() {
        return Ok(Outcome::Skipped(Skipped::NoRanges));
    }
    let status = status(mode, settings);
    let mut init = containers::init(mode, &notes, settings)?;
    let mut sidecar = containers::sidecar(mode, &notes, settings)?;
    let mut volumes = containers::volumes();
    let mut pod = pod.clone();
    // What others have changed since (a registry, a pull policy, a limit) is theirs to change.
    let is_again = pod["metadata"]["annotations"][STATUS_ANNOTATION] == status.as_str();
    let earlier = take_out(&mut pod);
    if is_again {
        for new in [&mut init, &mut sidecar].into_iter().chain(&mut volumes) {
            if let Some(earlier) = earlier.iter().find(|item| item["name"] == new["name"]) {
                new.clone_from(earlier);
            }
        }
    }
    let spec = object(&mut pod, "spec");
    if settings.native {
        // Both before the user's own, so that these are routed too; the one-shot has to be there before the sidecar's first client.
        change_list(spec, "initContainers", |list| drop(list.splice(0..0, [init, sidecar])));
    } else {
        // Before the one-shot has run nothing is refused: the user's own init containers take the platform's way.
        change_list(spec, "initContainers", |list| list.push(init));
        change_list(spec, "containers", |list| list.insert(0, sidecar));
    }
    change_list(spec, "volumes", |list| list.extend(volumes));
    object(object(&mut pod, "metadata"), "annotations")[STATUS_ANNOTATION] = Value::String(status);
    let warnings = without_effect(&pod);
    Ok(Outcome::Injected { pod, warnings })
}

/// What is noted on a pod: the same note means the same containers.
fn status(mode: Mode, settings: &Settings) -> String {
    json!({"version": env!("CARGO_PKG_VERSION"), "interception": mode.name(), "native": settings.native}).to_string()
}

/// Why a pod is left as it is, by what it and its namespace say; none: it gets a sidecar.
///
/// # Errors
/// What it says means nothing.
pub fn skipped(pod: &Value, namespace_labels: &BTreeMap<String, String>) -> Result<Option<Skipped>, Refused> {
    let spec = &pod["spec"];
    Ok(match Notes::of(pod).flag(POD_ANNOTATION)? {
        Some(false) => Some(Skipped::OptedOut),
        None if namespace_labels.get(NAMESPACE_LABEL).map(String::as_str) != Some("enabled") => Some(Skipped::NotAsked),
        Some(true) | None if spec["hostNetwork"] == true => Some(Skipped::HostNetwork),
        Some(true) | None if spec["os"]["name"] == "windows" || spec["nodeSelector"]["kubernetes.io/os"] == "windows" => {
            Some(Skipped::Windows)
        }
        Some(true) | None => None,
    })
}

fn same_uid(pod: &Value) -> Result<(), Refused> {
    let is_ours = |security: &Value| security["runAsUser"] == SIDECAR_UID;
    if is_ours(&pod["spec"]["securityContext"]) {
        return Err(Refused::SameUid { place: "spec.securityContext.runAsUser".to_owned() });
    }
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array().into_iter().flatten() {
            if container["name"] != SIDECAR && is_ours(&container["securityContext"]) {
                let name = container["name"].as_str().unwrap_or_default();
                return Err(Refused::SameUid { place: format!("spec.{list}[{name}].securityContext.runAsUser") });
            }
        }
    }
    Ok(())
}

/// Takes out what an earlier injection put in: other webhooks may have put theirs before it.
fn take_out(pod: &mut Value) -> Vec<Value> {
    let mut taken = Vec::new();
    for (field, names) in [("initContainers", [INIT, SIDECAR]), ("containers", [INIT, SIDECAR]), ("volumes", [VOLUME, TOKEN_VOLUME])] {
        if let Some(list) = pod["spec"].get_mut(field).and_then(Value::as_array_mut) {
            taken.extend(list.extract_if(.., |item| names.iter().any(|name| item["name"] == *name)));
        }
    }
    taken
}

fn object<'v>(value: &'v mut Value, field: &str) -> &'v mut Value {
    let field = &mut value[field];
    if !field.is_object() {
        *field = Value::Object(Map::new());
    }
    field
}

/// Changes a list, which is made if it is not there.
fn change_list(value: &mut Value, field: &str, change: impl FnOnce(&mut Vec<Value>)) {
    let field = &mut value[field];
    if !field.is_array() {
        *field = Value::Array(Vec::new());
    }
    if let Value::Array(list) = field {
        change(list);
    }
}

/// What a pod's author says in annotations; for opting in and out also in labels, which webhooks can be selected by.
pub(crate) struct Notes<'p> {
    annotations: &'p Value,
    labels: &'p Value,
}

impl<'p> Notes<'p> {
    fn of(pod: &'p Value) -> Self {
        Self { annotations: &pod["metadata"]["annotations"], labels: &pod["metadata"]["labels"] }
    }

    pub(crate) fn text(&self, name: &str) -> Option<&'p str> {
        debug_assert!(ANNOTATIONS.contains(&name) || EXACT_ANNOTATIONS.contains(&name), "{name} would be said to have no effect");
        self.annotations[name].as_str().or_else(|| self.labels[name].as_str())
    }

    pub(crate) fn one_of(&self, name: &'static str, values: &[&str], allowed: &'static str) -> Result<Option<&'p str>, Refused> {
        match self.text(name) {
            Some(value) if !values.contains(&value) => Err(Refused::Annotation { name, value: value.to_owned(), allowed }),
            said => Ok(said),
        }
    }

    pub(crate) fn flag(&self, name: &'static str) -> Result<Option<bool>, Refused> {
        Ok(self.one_of(name, &["true", "false"], "true, false")?.map(|value| value == "true"))
    }
}

/// What an injected pod's author wrote that has no effect: names and values that mean nothing, and what needs exact interception.
#[must_use]
pub fn without_effect(pod: &Value) -> Vec<String> {
    let noted: Value = pod["metadata"]["annotations"][STATUS_ANNOTATION].as_str().and_then(|noted| noted.parse().ok()).unwrap_or_default();
    let by_ranges = noted["interception"] == Mode::Ranges.name();
    let mut said = Vec::new();
    for (what, place) in [("annotation", "annotations"), ("label", "labels")] {
        for (name, value) in pod["metadata"][place].as_object().into_iter().flatten() {
            let why = match name.as_str() {
                other if !other.starts_with(PREFIX) || other.starts_with(LAB_PREFIX) => continue,
                NAMESPACE_LABEL => format!("it is a label of namespaces; a pod has {POD_ANNOTATION}"),
                exact if by_ranges && (EXACT_ANNOTATIONS.contains(&exact) || (exact == INTERCEPTION_ANNOTATION && value == "exact")) => {
                    "interception is by ranges here".to_owned()
                }
                known if !(ANNOTATIONS.contains(&known) || EXACT_ANNOTATIONS.contains(&known)) => "there is none of that name".to_owned(),
                _ if !value.is_string() => format!("{value} is no text: it needs quotes"),
                _ => continue,
            };
            said.push(format!("{what} {name} has no effect: {why}"));
        }
    }
    said
}

/// What to tell the one who makes a pod in such a namespace; none if nothing stands in the way.
#[must_use]
pub fn pod_security_warning(namespace: &str, labels: &BTreeMap<String, String>) -> Option<String> {
    let level = labels.get("pod-security.kubernetes.io/enforce").filter(|level| level.as_str() != "privileged")?;
    Some(format!(
        "namespace {namespace} enforces Pod Security level {level:?}, which forbids NET_ADMIN: pods with the Isthmus sidecar are rejected there. \
         Either set pod-security.kubernetes.io/enforce=privileged or remove {NAMESPACE_LABEL}"
    ))
}

#[cfg(test)]
mod tests;
