//! The `isthmus-controller` program.

use clap::Parser;
use controller::config::Config;
use tracing::level_filters::LevelFilter;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    logging::begin(LevelFilter::INFO);
    controller::run::run(Config::parse()).await
}
