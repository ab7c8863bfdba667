//! `isthmus graph`: what leads where, as a picture.

use kube::Client;
use routing::graph::{Graph, Loads, dot, svg};

use crate::config::{Graph as Config, Picture};
use crate::say::say;
use crate::{kubernetes, objects};

/// Draws it to standard output.
pub(crate) fn run(config: &Config) -> anyhow::Result<()> {
    let (objects, loads) = match &config.filename {
        Some(path) => (objects::of_client(path, &config.cluster)?, Loads::default()),
        None => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let client = kubernetes::client(config.context.as_ref()).await?;
                let settings = kubernetes::settings(&client, &config.controller_namespace).await?;
                let loads = loads(&client, &config.controller_namespace).await;
                anyhow::Ok((objects::of_cluster(&client, settings).await, loads))
            })?
        }
    };
    objects.faults.iter().for_each(|fault| eprintln!("{fault}; it counts as absent"));
    let graph = Graph::of(&objects.world, config.namespace.as_deref()).with(&loads);
    say(&match config.output {
        Picture::Svg => svg(&graph),
        Picture::Dot => dot(&graph),
        Picture::Json => serde_json::to_string_pretty(&graph)? + "\n",
    })
}

/// What sidecars have told all replicas of the controller; a picture without it is one all the same.
async fn loads(client: &Client, controller_namespace: &str) -> Loads {
    match kubernetes::ask_controllers::<Loads>(client, controller_namespace, "/load").await {
        Ok((answers, unasked)) => {
            unasked.iter().for_each(|reason| eprintln!("{reason}; rates are too low"));
            Loads::together(answers.into_iter().map(|(_, loads)| loads))
        }
        Err(error) => {
            eprintln!("{error:#}; the picture is without rates");
            Loads::default()
        }
    }
}
