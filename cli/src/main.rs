//! The `isthmus` program.

use clap::Parser;
use cli::config::Config;
use tracing::level_filters::LevelFilter;

fn main() -> anyhow::Result<()> {
    logging::begin(LevelFilter::WARN);
    cli::run(Config::parse())
}
