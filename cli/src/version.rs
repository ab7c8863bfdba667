//! `isthmus version`: of this program, of the controller and of the sidecars.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::Version;
use crate::kubernetes;

#[derive(Debug, Serialize)]
struct Versions {
    client: &'static str,
    /// By replica.
    #[serde(skip_serializing_if = "Option::is_none")]
    controllers: Option<BTreeMap<String, String>>,
    /// Sidecars of each version.
    #[serde(skip_serializing_if = "Option::is_none")]
    sidecars: Option<BTreeMap<String, usize>>,
}

#[derive(Deserialize)]
struct Sidecar {
    #[serde(default)]
    version: String,
}

#[derive(Deserialize)]
struct Controller {
    version: String,
}

/// Says them. Without a cluster that can be asked it is the client's alone, and the reason.
pub(crate) fn run(config: &Version) -> anyhow::Result<()> {
    let mut versions = Versions { client: env!("CARGO_PKG_VERSION"), controllers: None, sidecars: None };
    if !config.client {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        if let Err(error) = runtime.block_on(ask(config, &mut versions)) {
            eprintln!("the mesh cannot be asked: {error:#}");
        }
    }
    config.output.say(&versions, || text(&versions))
}

async fn ask(config: &Version, versions: &mut Versions) -> anyhow::Result<()> {
    let client = kubernetes::client(config.mesh.context.as_ref()).await?;
    let namespace = &config.mesh.controller_namespace;
    let (controllers, unasked) = kubernetes::ask_controllers::<Controller>(&client, namespace, "/version").await?;
    unasked.iter().for_each(|why| eprintln!("{why}"));
    versions.controllers = Some(controllers.into_iter().map(|(replica, controller)| (replica, controller.version)).collect());
    let (lists, _) = kubernetes::ask_controllers::<Vec<Sidecar>>(&client, namespace, "/sidecars").await?;
    let mut sidecars = BTreeMap::new();
    for sidecar in lists.into_iter().flat_map(|(_, list)| list) {
        *sidecars.entry(sidecar.version).or_default() += 1;
    }
    versions.sidecars = Some(sidecars);
    Ok(())
}

fn text(versions: &Versions) -> String {
    let mut lines = vec![format!("client      {}", versions.client)];
    lines.extend(versions.controllers.iter().flatten().map(|(replica, version)| format!("controller  {version}  {replica}")));
    lines.extend(versions.sidecars.iter().flatten().map(|(version, count)| format!("sidecars    {version}  {count}")));
    lines.join("\n") + "\n"
}
