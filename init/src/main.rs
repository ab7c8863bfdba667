//! The `isthmus-init` program.

use clap::Parser;
use init::config::Config;
use tracing::level_filters::LevelFilter;

fn main() -> anyhow::Result<()> {
    logging::begin(LevelFilter::INFO);
    init::config::run(Config::parse())
}
