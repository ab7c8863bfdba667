//! The `isthmus` program.

use std::path::Path;

use clap::Parser;
use cli::complete;
use cli::config::Config;
use tracing::level_filters::LevelFilter;

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args_os();
    if words.next().is_some_and(|program| complete::is_asked(Path::new(&program))) {
        return complete::run(words.collect());
    }
    logging::begin(LevelFilter::WARN);
    cli::run(Config::parse())
}
