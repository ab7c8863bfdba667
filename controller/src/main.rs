//! The `isthmus-controller` program.

use clap::Parser;
use controller::config::Config;
use mimalloc::MiMalloc;
use tracing::level_filters::LevelFilter;

/// Many small objects of all ages: with this one they take two thirds of the memory, and a change a tenth less CPU (docs/performance.md).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    logging::begin(LevelFilter::INFO);
    controller::run::run(Config::parse()).await
}
