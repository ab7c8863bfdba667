//! `isthmus check`: everything that the mesh needs, one by one, and what to do about what is missing.

mod cluster;
mod control;
mod workloads;

use std::process::exit;

use kube::Client;
use serde::Serialize;

use crate::config::Check;
use crate::paint::Tone;

/// What a check comes to.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warning,
    Failed,
}

/// One finding.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    check: &'static str,
    level: Level,
    message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

/// What is found, in order.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, check: &'static str, message: impl Into<String>) {
        self.0.push(Finding { check, level: Level::Ok, message: message.into(), advice: None });
    }

    fn warn(&mut self, check: &'static str, message: impl Into<String>, advice: impl Into<String>) {
        self.0.push(Finding { check, level: Level::Warning, message: message.into(), advice: Some(advice.into()) });
    }

    fn fail(&mut self, check: &'static str, message: impl Into<String>, advice: impl Into<String>) {
        self.0.push(Finding { check, level: Level::Failed, message: message.into(), advice: Some(advice.into()) });
    }

    /// What cannot be found out is no reason to leave the rest out.
    fn unknown(&mut self, check: &'static str, error: &impl std::fmt::Display) {
        self.warn(check, format!("cannot be found out: {error}"), "see whether you may read it: kubectl auth can-i --list");
    }

    fn worst(&self) -> Level {
        self.0.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
    }
}

/// Where is looked.
struct Cluster {
    client: Client,
    /// Namespace of the controller.
    namespace: String,
}

/// Looks, and ends the program with 1 if something failed.
pub(crate) fn run(config: &Check) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let findings = runtime.block_on(look(config))?;
    config.output.say(&findings.0, || text(&findings))?;
    if findings.worst() == Level::Failed {
        exit(1);
    }
    Ok(())
}

async fn look(config: &Check) -> anyhow::Result<Findings> {
    let client = crate::kubernetes::client(config.context.as_ref()).await?;
    let cluster = Cluster { client, namespace: config.namespace.clone() };
    let mut findings = Findings::default();
    if !cluster::version(&cluster, &mut findings).await {
        return Ok(findings);
    }
    cluster::kinds(&cluster, &mut findings).await;
    cluster::clusterset_ips(&cluster, &mut findings).await;
    cluster::socket_load_balancing(&cluster, &mut findings).await;
    control::controller(&cluster, &mut findings).await;
    control::access(&cluster, &mut findings).await;
    control::certificates(&cluster, &mut findings).await;
    control::webhook(&cluster, &mut findings).await;
    workloads::namespaces(&cluster, &mut findings).await;
    workloads::routes(&cluster, &mut findings).await;
    Ok(findings)
}

fn text(findings: &Findings) -> String {
    let mut text = String::new();
    for Finding { check, level, message, advice } in &findings.0 {
        let (mark, tone) = match level {
            Level::Ok => ("ok", Tone::Good),
            Level::Warning => ("WARNING", Tone::Doubtful),
            Level::Failed => ("FAILED", Tone::Bad),
        };
        text += &format!("{} {check}: {message}\n", tone.paint(&format!("{mark:<8}")));
        if let Some(advice) = advice {
            text += &format!("         -> {advice}\n");
        }
    }
    let count = |level| findings.0.iter().filter(|finding| finding.level == level).count();
    text + &format!("{} ok, {} warnings, {} failed\n", count(Level::Ok), count(Level::Warning), count(Level::Failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_comes_with_what_to_do() {
        let mut findings = Findings::default();
        findings.ok("version", "v1.37.2");
        assert_eq!(findings.worst(), Level::Ok);
        findings.fail("webhook", "is not there", "install it");
        findings.warn("clock", "is late", "set it");
        assert_eq!(findings.worst(), Level::Failed);
        let said = anstream::adapter::strip_str(&text(&findings)).to_string();
        assert!(said.contains("FAILED   webhook: is not there\n         -> install it\n"), "{said}");
        assert!(said.ends_with("1 ok, 1 warnings, 1 failed\n"), "{said}");
    }
}
