//! `isthmus explain`: why a request goes where it goes, by the objects of a folder.

use std::process::exit;

use anyhow::{Context, bail};
use http::{HeaderName, HeaderValue, Request, Uri, Version};
use routing::explain::{Applied, Asked, Destination, Explanation, OutcomeKind, Share, Verdict, explain};
use routing::locality::Location;

use crate::config::{Explain, Output};
use crate::objects;

/// Explains, and ends the program with 1 if some of such requests get an error of the mesh.
pub(crate) fn run(config: &Explain) -> anyhow::Result<()> {
    let objects = objects::of_client(&config.filename, &config.cluster)?;
    // As in a cluster: what cannot be read counts as absent.
    objects.faults.iter().for_each(|fault| eprintln!("{fault}; it counts as absent"));
    let explanation = explain(&objects.world, &asked(config, &objects.cluster)?)
        .with_context(|| format!("{}: are the cluster's Services and ServiceImports in it?", config.filename.display()))?;
    match config.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&explanation)?),
        Output::Text => print!("{}", text(&explanation)),
    }
    match explanation.outcome.kind {
        OutcomeKind::PassesThrough | OutcomeKind::Forwarded | OutcomeKind::Answered => Ok(()),
        OutcomeKind::PartlyForwarded | OutcomeKind::Refused => exit(1),
    }
}

fn asked(config: &Explain, cluster: &str) -> anyhow::Result<Asked> {
    let (method, url) = config.request.split_once(' ').unwrap_or(("GET", &config.request));
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let uri: Uri = url.parse().with_context(|| format!("{url:?} is no URL"))?;
    let authority = uri.authority().with_context(|| format!("{url}: no host"))?;
    let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let port = authority.port_u16().unwrap_or(default).try_into().with_context(|| format!("{url}: port 0"))?;
    let target = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder().method(method).uri(target).body(()).with_context(|| format!("{:?}", config.request))?;
    request.headers_mut().insert(http::header::HOST, HeaderValue::from_str(authority.as_str())?);
    for header in &config.header {
        let Some((name, value)) = header.split_once(':') else { bail!("--header {header:?} is not NAME: VALUE") };
        let name: HeaderName = name.trim().parse().with_context(|| format!("--header {header:?}"))?;
        let value: HeaderValue = value.trim().parse().with_context(|| format!("--header {header:?}"))?;
        if name == http::header::HOST {
            request.headers_mut().insert(name, value);
        } else {
            request.headers_mut().append(name, value);
        }
    }
    if config.http2 {
        *request.version_mut() = Version::HTTP_2;
    }
    Ok(Asked {
        client_namespace: config.from.clone(),
        location: Location { cluster: cluster.to_owned(), node: config.node.clone(), zone: config.zone.clone() },
        host: authority.host().to_owned(),
        server_name: None,
        port,
        request: request.into_parts().0,
    })
}

fn text(explanation: &Explanation) -> String {
    let Explanation { frontend, vips, routes, matches, filters, backends, outcome } = explanation;
    let vips: Vec<String> = vips.iter().map(ToString::to_string).collect();
    let mut text = format!("dialled   {frontend} at {}\n", vips.join(", "));
    for route in routes {
        let mark = if route.in_force { "in force" } else { "left out" };
        text += &format!("route     {mark}: {} {}: {}\n", route.kind, route.route, route.why);
        text.extend(route.dropped.iter().map(|why| format!("            dropped: {why}\n")));
    }
    for candidate in matches {
        let mark = match candidate.verdict {
            Verdict::Won => "WON",
            Verdict::Lost => "lost",
            Verdict::Mismatched => "no",
        };
        let (rank, route, rule, asks, why) = (candidate.rank, &candidate.route, candidate.rule, &candidate.asks, &candidate.why);
        text += &format!("match {rank:<3} {mark:<4} {route} rule {rule}: {asks}: {why}\n");
    }
    text.extend(filters.iter().map(|applied| filter("", applied)));
    text.extend(backends.iter().map(backend));
    let answer = match (outcome.status, outcome.reason) {
        (Some(status), Some(reason)) => format!("{status} {reason}: "),
        (_, _) => String::new(),
    };
    text + &format!("outcome   {answer}{}\n", outcome.message)
}

fn filter(indent: &str, Applied { filter, effect, before, after }: &Applied) -> String {
    let change = if before == after { String::new() } else { format!(": {before} -> {after}") };
    format!("{indent}filter    {filter}: {effect}{change}\n")
}

fn backend(share: &Share) -> String {
    let mut text = format!("backend   {:>5.1} % {}\n", share.percent, share.backend);
    text.extend(share.filters.iter().map(|applied| filter("          ", applied)));
    match &share.destination {
        Destination::Endpoints(clusters) => text.extend(clusters.iter().map(|(cluster, addresses)| {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            format!("            {cluster}: {}\n", addresses.join(", "))
        })),
        Destination::Vips(vips) => {
            let vips: Vec<String> = vips.iter().map(ToString::to_string).collect();
            text += &format!("            the platform's own address: {}\n", vips.join(", "));
        }
        Destination::Nowhere => {}
    }
    if let Some(instead) = &share.instead {
        text += &format!("            instead: {}\n", instead.message);
    }
    text
}
