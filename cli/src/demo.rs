//! `isthmus demo`: clusters on this machine, requests from a pod, and where they went.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use controller::directory;
use lab::client::Ask;
use lab::lab::{Lab, Options};
use lab::privilege::Privilege;
use lab::roles::PodName;
use routing::graph::{Graph, svg};
use routing::manifest;

use crate::config::{Demo, Intercept};
use crate::expected::{self, Case, Seen};
use crate::objects;
use crate::shell;
use crate::table::table;

/// A line of the access log is there within this time after its response.
const LOG_MAX: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How often the folder is looked at for edits.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

/// Runs the demo to its end, Ctrl-C included; everything it made is gone then.
pub(crate) fn run(demo: &Demo) -> anyhow::Result<()> {
    ensure!(demo.folder.is_dir(), "{}: no such folder; run this where manifests/examples is, or name a folder", demo.folder.display());
    let cases = cases(demo)?;
    let privilege = Privilege::acquire()?;
    let interrupted = shell::interruptions()?;
    let how = match privilege {
        Privilege::Root => "as root",
        Privilege::UserNamespace => "in a user namespace, without root",
    };
    eprintln!("Starting the clusters of {} {how} ...", demo.folder.display());
    let began = Instant::now();
    let options = Options {
        intercept: match demo.intercept {
            Intercept::Exact => lab::Intercept::Exact,
            Intercept::Cidr => lab::Intercept::Cidr,
        },
        ..Options::default()
    };
    let mut lab = Lab::start(&demo.folder, options, privilege)?;
    let pods: Vec<String> = lab.pods().map(ToString::to_string).collect();
    eprintln!("{} pods in {} ms: {}\n", pods.len(), began.elapsed().as_millis(), pods.join(", "));
    let unexpected = ask_all(&lab, demo, &cases, &interrupted)?;
    if let Some(path) = &demo.picture {
        draw(&lab, demo, path).with_context(|| format!("--picture {}", path.display()))?;
    }
    if demo.shell {
        let client = client(&lab, demo.from.as_deref())?;
        shell::open(&mut lab, &client, follow)?;
    } else if demo.keep {
        eprintln!("\nStays until Ctrl-C; edits in {} take effect at once.", demo.folder.display());
        follow(&mut lab, &interrupted)?;
    }
    drop(lab);
    ensure!(unexpected == 0, "{unexpected} answers were not what expected.yaml says");
    Ok(())
}

/// What leads where as the client's cluster sees it, and where to look at it.
fn draw(lab: &Lab, demo: &Demo, path: &Path) -> anyhow::Result<()> {
    let objects = objects::of_client(&demo.folder, &client(lab, demo.from.as_deref())?.cluster)?;
    std::fs::write(path, svg(&Graph::of(&objects.world, None)))?;
    eprintln!("\nWhat leads where, for a browser: file://{}", path.canonicalize()?.display());
    Ok(())
}

fn cases(demo: &Demo) -> anyhow::Result<Vec<Case>> {
    if demo.request.is_empty() {
        return Ok(expected::read(&demo.folder)?.unwrap_or_default());
    }
    let to = match &demo.to {
        Some(to) => to.clone(),
        None => first_frontend(&demo.folder)?,
    };
    let case = |request: &String| Case {
        from: demo.from.clone(),
        to: to.clone(),
        request: request.clone(),
        headers: demo.header.clone(),
        times: 1,
        ..Case::default()
    };
    Ok(demo.request.iter().map(case).collect())
}

/// The first ServiceImport that a route names as its parent.
fn first_frontend(folder: &Path) -> anyhow::Result<String> {
    for cluster in lab::manifests::read(folder)?.values() {
        for route in cluster.objects::<serde_json::Value>("HTTPRoute") {
            let parents = route.pointer("/spec/parentRefs").and_then(|parents| parents.as_array()).cloned().unwrap_or_default();
            let import = parents.iter().find(|parent| parent["kind"] == "ServiceImport");
            let Some(parent) = import else { continue };
            let own = route.pointer("/metadata/namespace").and_then(|namespace| namespace.as_str()).unwrap_or("default");
            let namespace = parent["namespace"].as_str().unwrap_or(own);
            let port = parent["port"].as_u64().unwrap_or(80);
            if let Some(name) = parent["name"].as_str() {
                return Ok(format!("{name}.{namespace}.svc.clusterset.local:{port}"));
            }
        }
    }
    bail!("no route names a ServiceImport as its parent: say with --to where the request goes")
}

fn client(lab: &Lab, from: Option<&str>) -> anyhow::Result<PodName> {
    from.map_or_else(|| lab.client(), |name| lab.pod(name))
}

/// Asks, prints, and gives how many answers were not as expected.
fn ask_all(lab: &Lab, demo: &Demo, cases: &[Case], interrupted: &Receiver<()>) -> anyhow::Result<usize> {
    let mut rows = Vec::new();
    let mut unexpected = Vec::new();
    for case in cases {
        ensure!(interrupted.try_recv().is_err(), "interrupted");
        let client = client(lab, case.from.as_deref().or(demo.from.as_deref()))?;
        let (seen, took) = ask_times(lab, &client, case).with_context(|| format!("{} to {}", case.request, case.to))?;
        for difference in case.differences(&seen) {
            unexpected.push(format!("{} to {}: {difference}", case.request, case.to));
        }
        let decided = match (&seen.reason, seen.route.is_empty()) {
            (Some(reason), true) => reason.clone(),
            (Some(reason), false) => format!("{} rule {}: {reason}", seen.route, seen.rule),
            (None, true) => "(no route)".to_owned(),
            (None, false) => format!("{} rule {}", seen.route, seen.rule),
        };
        let served_by = if seen.served_by.is_empty() { "(sidecar)".to_owned() } else { counted(&seen.served_by, &case.served_by) };
        let times = if case.times > 1 { format!(" x{}", case.times) } else { String::new() };
        rows.push(vec![
            format!("{}{times}", case.request),
            case.to.clone(),
            seen.status.to_string(),
            served_by,
            decided,
            format!("{:.1} ms", took.as_secs_f64() * 1e3),
        ]);
    }
    if !rows.is_empty() {
        // Where nobody reads any more it fails, and does not leave here: the clusters have to be ended.
        let text = table(&["REQUEST", "TO", "STATUS", "SERVED BY", "ROUTE OR REASON", "TIME"], &rows);
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("standard output")?;
    }
    for line in &unexpected {
        eprintln!("unexpected: {line}");
    }
    Ok(unexpected.len())
}

/// The name, or, where it was asked more than once, `GROUP (3), GROUP (5)`; a group is a beginning of names that was expected.
fn counted(names: &[String], groups: &[String]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in names {
        let group = groups.iter().find(|group| name.starts_with(group.as_str()));
        *counts.entry(group.unwrap_or(name)).or_default() += 1;
    }
    let parts: Vec<String> = match names {
        [one] => vec![one.clone()],
        _ => counts.iter().map(|(name, count)| format!("{name} ({count})")).collect(),
    };
    parts.join(", ")
}

/// Asks as often as the case says; the time is the median.
fn ask_times(lab: &Lab, client: &PodName, case: &Case) -> anyhow::Result<(Seen, Duration)> {
    let (mut all, first) = ask(lab, client, case)?;
    let mut times = vec![first];
    for _ in 1..case.times {
        let (seen, took) = ask(lab, client, case)?;
        ensure!((seen.status, &seen.route, &seen.rule) == (all.status, &all.route, &all.rule), "answers differ: {seen:?}, {all:?}");
        all.served_by.extend(seen.served_by);
        times.push(took);
    }
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or(first);
    Ok((all, median))
}

fn ask(lab: &Lab, client: &PodName, case: &Case) -> anyhow::Result<(Seen, Duration)> {
    let (method, target) = case.request.split_once(' ').with_context(|| format!("{:?} is not METHOD TARGET", case.request))?;
    let host = case.to.strip_suffix(":80").unwrap_or(&case.to).to_owned();
    let mut ask = Ask { method: method.parse()?, ..Ask::get(&host, target) };
    for header in &case.headers {
        let (name, value) = header.split_once(':').with_context(|| format!("{header:?} is not NAME: VALUE"))?;
        ask.headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    let before = lab.access_log(client).map_or(0, |lines| lines.len());
    let answer = lab.ask(client, &case.to, &ask)?;
    let logged = logged(lab, client, before, &case.to)?;
    let text = |field: &str| logged[field].as_str().unwrap_or_default().to_owned();
    let seen = Seen {
        status: answer.status.as_u16(),
        served_by: answer.served_by().map(str::to_owned).into_iter().collect(),
        route: text("route"),
        rule: text("rule"),
        reason: answer.reason().map(str::to_owned),
    };
    Ok((seen, answer.took))
}

/// The line that the sidecar wrote about a request; null if the request did not reach it because its VIP has no route.
fn logged(lab: &Lab, client: &PodName, before: usize, to: &str) -> anyhow::Result<serde_json::Value> {
    let address = lab.address(client, to)?;
    if !lab.has_sidecar(client)? {
        return Ok(serde_json::Value::Null);
    }
    let config: serde_json::Value = serde_json::from_str(&lab.sidecar_admin(client, "/config")?).context("/config")?;
    let is_routed = config["vips"].as_array().is_some_and(|vips| vips.iter().any(|vip| vip["address"] == address.to_string().as_str()));
    let end = Instant::now() + LOG_MAX;
    while is_routed && Instant::now() < end {
        let lines = lab.access_log(client)?;
        if let Some(line) = lines.get(before) {
            return Ok(line.clone());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    ensure!(!is_routed, "the sidecar logged nothing");
    Ok(serde_json::Value::Null)
}

/// Keeps the lab equal to its folder until interrupted.
fn follow(lab: &mut Lab, interrupted: &Receiver<()>) -> anyhow::Result<()> {
    let mut last = fingerprint(lab.source())?;
    loop {
        match interrupted.recv_timeout(FOLLOW_EVERY) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        // An editor may have the folder in pieces for a moment.
        let Ok(now) = fingerprint(lab.source()) else { continue };
        if now != last {
            last = now;
            let began = Instant::now();
            match lab.reconcile() {
                Ok(()) => eprintln!("[isthmus] in force after {} ms", began.elapsed().as_millis()),
                Err(error) => eprintln!("[isthmus] {error:#}"),
            }
        }
    }
}

fn fingerprint(folder: &Path) -> anyhow::Result<String> {
    let files = directory::read(folder)?;
    Ok(format!("{} {:?}", manifest::digest(files.contents), files.unread))
}
