//! A Prometheus inside the client's network namespace.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lab::roles::PodName;
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;
use tests::Bed;

const ADDRESS: &str = "127.0.0.1:9090";
/// It is up, and has scraped both targets, within this time.
const UP_MAX: Duration = Duration::from_secs(60);
/// Between two looks at a program that says nothing.
const PAUSE: Duration = Duration::from_millis(100);

/// A running Prometheus.
pub(crate) struct Prometheus<'b> {
    child: Child,
    bed: &'b Bed,
    client: PodName,
    folder: TempDir,
}

/// A rule, as Prometheus sees it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) health: String,
    #[serde(default)]
    pub(crate) last_error: String,
    #[serde(default)]
    pub(crate) state: String,
}

impl<'b> Prometheus<'b> {
    /// Starts it, and waits until it has scraped the client's sidecar and the controller.
    pub(crate) fn start(programs: &Path, bed: &'b Bed, rules: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let client = bed.client()?;
        let controller = bed.controller_admin();
        let job = |name: &str, target: &str, labels: &str| {
            format!("- job_name: {name}\n  static_configs:\n  - targets: ['{target}']\n    labels: {{{labels}}}\n")
        };
        let configuration = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n{}{}",
            rules.canonicalize()?.display(),
            job("isthmus-sidecar", "127.0.0.1:15000", "namespace: default, pod: client"),
            job("isthmus-controller", &controller.to_string(), "namespace: isthmus-system, pod: controller"),
        );
        let file = folder.path().join("prometheus.yaml");
        fs::write(&file, configuration)?;
        let log = File::create(folder.path().join("log"))?;
        let program: PathBuf = programs.join("prometheus").canonicalize().context("make observability fetches it")?;
        let data = folder.path().join("data");
        let child = bed.namespace(&client)?.run(|| {
            let mut command = Command::new(program);
            command
                .arg(format!("--config.file={}", file.display()))
                .arg(format!("--storage.tsdb.path={}", data.display()))
                .arg(format!("--web.listen-address={ADDRESS}"))
                .stdout(log.try_clone()?)
                .stderr(log);
            command.spawn().context("prometheus")
        })?;
        let prometheus = Self { child, bed, client, folder };
        prometheus.wait()?;
        Ok(prometheus)
    }

    fn wait(&self) -> anyhow::Result<()> {
        let end = Instant::now() + UP_MAX;
        while !self.query("up == 1").is_ok_and(|count| count == 2) {
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            ensure!(Instant::now() < end, "Prometheus does not see both targets: {}", log());
            // It says nothing when it has scraped.
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// How many series a query finds.
    pub(crate) fn query(&self, query: &str) -> anyhow::Result<usize> {
        let answer = self.get("query", &[("query", query)])?;
        Ok(answer["result"].as_array().context("no result")?.len())
    }

    /// All rules.
    pub(crate) fn rules(&self) -> anyhow::Result<Vec<Rule>> {
        let answer = self.get("rules", &[])?;
        let groups = answer["groups"].as_array().context("no groups")?;
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().map(Vec::as_slice).unwrap_or_default());
        rules.map(|rule| Ok(serde_json::from_value(rule.clone())?)).collect()
    }

    fn get(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<Value> {
        let url = format!("http://{ADDRESS}/api/v1/{path}");
        self.bed.namespace(&self.client)?.block_on(|| async {
            let response = reqwest::Client::new().get(url).query(query).send().await?;
            let answer: Value = response.json().await?;
            ensure!(answer["status"] == "success", "{}", answer["error"]);
            Ok(answer["data"].clone())
        })
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        // Ours alone, and nothing of it is kept.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
