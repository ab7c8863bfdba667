//! `isthmus lint`: what in manifests does not do what its author means.

use std::process::exit;

use routing::lint::{Finding, Severity, lint};
use serde::Serialize;

use crate::config::Lint;
use crate::objects::{self, Fault, Objects};
use crate::paint::Tone;

/// A finding and where it is.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
struct Line {
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<usize>,
    #[serde(skip_serializing_if = "String::is_empty")]
    cluster: String,
    severity: Severity,
    code: &'static str,
    object: String,
    field: String,
    message: String,
}

/// Says what is found, and ends the program with 1 if there is an error, or a warning where that counts as one.
pub(crate) fn run(config: &Lint) -> anyhow::Result<()> {
    let all = objects::read(&config.path)?;
    let mut lines: Vec<Line> = all.iter().flat_map(lines).collect();
    lines.sort();
    let errors = lines.iter().filter(|line| line.severity == Severity::Error).count();
    let warnings = lines.len() - errors;
    config.output.say(&lines, || {
        let found: String = lines.iter().map(|line| text(line) + "\n").collect();
        format!("{found}{errors} errors, {warnings} warnings\n")
    })?;
    if errors > 0 || (config.strict && warnings > 0) {
        exit(1);
    }
    Ok(())
}

fn lines(objects: &Objects) -> Vec<Line> {
    let faults = objects.faults.iter().map(|fault| of_fault(objects, fault));
    faults.chain(lint(&objects.world).into_iter().map(|finding| of_finding(objects, finding))).collect()
}

fn of_fault(objects: &Objects, fault: &Fault) -> Line {
    Line {
        file: fault.place.file.display().to_string(),
        document: fault.place.document,
        cluster: objects.cluster.clone(),
        severity: Severity::Error,
        code: "Unreadable",
        object: String::new(),
        field: fault.field.clone(),
        message: fault.message.clone(),
    }
}

fn of_finding(objects: &Objects, finding: Finding) -> Line {
    let place = objects.places.iter().find(|(key, _)| finding.is_of(key)).map(|(_, place)| place);
    Line {
        file: place.map(|place| place.file.display().to_string()).unwrap_or_default(),
        document: place.and_then(|place| place.document),
        cluster: objects.cluster.clone(),
        severity: finding.severity,
        code: finding.code,
        object: format!("{} {}/{}", finding.kind, finding.namespace, finding.name),
        field: finding.field,
        message: finding.message,
    }
}

/// `FILE: document N: KIND NAMESPACE/NAME: FIELD: error Code: message`, without what is not known.
fn text(line: &Line) -> String {
    let severity = match line.severity {
        Severity::Error => Tone::Bad.paint("error"),
        Severity::Warning => Tone::Doubtful.paint("warning"),
    };
    let document = line.document.map(|document| format!("document {document}")).unwrap_or_default();
    let parts = [line.file.as_str(), &document, &line.object, &line.field].into_iter().filter(|part| !part.is_empty());
    let place: String = parts.map(|part| format!("{part}: ")).collect();
    format!("{place}{severity} {}: {}", line.code, line.message)
}
