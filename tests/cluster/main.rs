//! The mesh on real Kubernetes: `make cluster`. Two clusters are up (`bed up`) and have the images; everything else happens here, by the
//! commands that the documentation names.
//!
//! Usage: `cluster [CASE...]`; without a name every case runs, in order.

mod bed;
mod cases;

use std::process::ExitCode;
use std::time::Instant;

use bed::Bed;

type Case = (&'static str, fn(&Bed) -> anyhow::Result<()>);

/// In their order: the first one installs what the others use.
const CASES: [Case; 33] = [
    ("install", cases::install::install),
    ("manifests", cases::manifests::kustomize_is_the_chart),
    ("main-job", cases::routing::main_job),
    ("init-container", cases::routing::an_init_container_is_routed),
    ("job", cases::routing::a_job_ends),
    ("system-roots", cases::routing::the_image_has_the_systems_authorities),
    ("proxies", cases::explain::every_proxy_is_listed),
    ("explain", cases::explain::three_ways_to_break_it),
    ("live", cases::live::everybody_or_who_is_behind),
    ("tap", cases::live::requests_are_shown),
    ("pages", cases::pages::every_command_does_what_its_page_says),
    ("plugin", cases::pages::kubectl_has_a_plugin),
    ("left-alone", cases::injection::who_is_left_alone),
    ("refused", cases::injection::mistakes_are_named),
    ("one-shot", cases::injection::by_ranges),
    ("large-segments", cases::injection::large_segments),
    ("without-native-sidecars", cases::injection::without_native_sidecars),
    ("offline", cases::injection::offline),
    ("location", cases::location::nodes_and_zones),
    ("status", cases::status::beside_another_claimant),
    ("service-imports-alone", cases::status::service_imports_alone),
    ("kind-goes-and-comes", cases::source::a_kind_goes_and_comes),
    ("older-version", cases::source::an_older_version_is_followed),
    ("api-server-away", cases::source::the_api_server_is_away),
    ("socket-load-balancing", cases::check::socket_load_balancing),
    ("rights", cases::check::missing_rights),
    ("cannot-work", cases::check::what_cannot_work),
    ("another-ca", cases::lifecycle::another_ca),
    ("upgrade", cases::lifecycle::upgrade),
    ("uninstall", cases::lifecycle::uninstall),
    ("faults", cases::faults::a_rollout_under_faults),
    ("readiness", cases::measures::readiness),
    ("propagation", cases::measures::propagation),
];

fn main() -> anyhow::Result<ExitCode> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = wanted.iter().find(|name| !CASES.iter().any(|(case, _)| case == name)) {
        let names: Vec<&str> = CASES.iter().map(|(name, _)| *name).collect();
        anyhow::bail!("no such case: {unknown} (there are: {})", names.join(", "));
    }
    let bed = Bed::running()?;
    let mut failures = Vec::new();
    for (name, case) in CASES.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name)) {
        let began = Instant::now();
        println!("{name} ...");
        match case(&bed) {
            Ok(()) => println!("{name}: ok, {:.1} s", began.elapsed().as_secs_f64()),
            Err(error) => {
                let mut failure = format!("{name}: FAILED after {:.1} s: {error:#}", began.elapsed().as_secs_f64());
                println!("{failure}");
                // Else those after it would fail by what it left; and where that cannot be, they would show nothing.
                let cleared = cases::install::afresh(&bed);
                if let Err(error) = &cleared {
                    failure += &format!("\n  what it left could not be cleared, so that no further case was run: {error:#}");
                }
                failures.push(failure);
                if cleared.is_err() {
                    break;
                }
            }
        }
    }
    if failures.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} failed", failures.len());
    // Again, where a reader looks first.
    for failure in failures {
        println!("{failure}");
    }
    Ok(ExitCode::FAILURE)
}
