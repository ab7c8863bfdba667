//! The `isthmus` program: what it does, thin over the other crates.

mod check;
pub mod complete;
pub mod config;
mod demo;
mod expected;
mod explain;
mod graph;
mod inject;
mod kubernetes;
mod lint;
mod objects;
mod paint;
mod progress;
mod proxies;
mod request;
mod say;
mod shell;
mod status;
mod table;
mod tap;
mod url;
mod version;

use anyhow::Context as _;
use clap::CommandFactory as _;
use config::{Command, Config};

/// Does what the command line says.
///
/// # Errors
/// What could not be done and why.
pub fn run(config: Config) -> anyhow::Result<()> {
    let done = obey(config);
    progress::clear();
    done
}

fn obey(config: Config) -> anyhow::Result<()> {
    match config.command {
        Command::Check(check) => check::run(&check),
        Command::Inject(inject) => inject::run(&inject),
        Command::Explain(asked) => explain::run(&asked),
        Command::Lint(lint) => lint::run(&lint),
        Command::Proxies(proxies) => proxies::run(&proxies),
        Command::Graph(asked) => graph::run(&asked),
        Command::Status(status) => status::run(&status),
        Command::Tap(tap) => tap::run(&tap),
        Command::Version(version) => version::run(&version),
        Command::Completion(completion) => {
            let mut script = Vec::new();
            clap_complete::generate(completion.shell, &mut Config::command(), "isthmus", &mut script);
            say::pass(&script)
        }
        Command::Man(man) => clap_mangen::generate_to(Config::command(), &man.folder).with_context(|| man.folder.display().to_string()),
        Command::Demo(demo) => demo::run(&demo),
        Command::Hold => {
            std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
            Ok(())
        }
        Command::Request(request) => request::run(&request),
    }
}
