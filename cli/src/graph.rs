//! `isthmus graph`: what leads where, as a picture.

use routing::graph::{Graph, dot, svg};

use crate::config::{Graph as Config, Picture};
use crate::say::say;
use crate::{kubernetes, objects};

/// Draws it to standard output.
pub(crate) fn run(config: &Config) -> anyhow::Result<()> {
    let objects = match &config.filename {
        Some(path) => objects::of_client(path, &config.cluster)?,
        None => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let client = kubernetes::client(config.context.as_ref()).await?;
                let settings = kubernetes::settings(&client, &config.controller_namespace).await?;
                anyhow::Ok(objects::of_cluster(&client, settings).await)
            })?
        }
    };
    objects.faults.iter().for_each(|fault| eprintln!("{fault}; it counts as absent"));
    let graph = Graph::of(&objects.world, config.namespace.as_deref());
    say(&match config.output {
        Picture::Svg => svg(&graph),
        Picture::Dot => dot(&graph),
        Picture::Json => serde_json::to_string_pretty(&graph)? + "\n",
    })
}
