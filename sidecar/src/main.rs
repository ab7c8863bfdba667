//! The `isthmus-sidecar` program.

use clap::Parser;
use sidecar::config::Config;
use tracing::level_filters::LevelFilter;

fn main() -> anyhow::Result<()> {
    logging::begin(LevelFilter::INFO);
    let config = Config::parse();
    if config.await_startup { sidecar::startup::wait(&config) } else { sidecar::run::run(config) }
}
