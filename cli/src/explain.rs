//! `isthmus explain`: why a request goes where it goes, by the objects of a cluster or of a folder, and whether the client's sidecar knows.

mod live;

use std::process::exit;

use anyhow::{Context, bail};
use http::{HeaderName, HeaderValue, Request, Version};
use routing::explain::{Applied, Asked, Destination, Explanation, OutcomeKind, Share, Verdict, explain};
use routing::locality::Location;

use serde::Serialize;

use crate::config::Explain;
use crate::paint::Tone;
use crate::{kubernetes, objects, url};
use live::{Held, Pod};

/// What is said: the walk, and whether the client's own sidecar takes it.
#[derive(Serialize)]
struct Said {
    #[serde(flatten)]
    explanation: Explanation,
    #[serde(skip_serializing_if = "Option::is_none")]
    sidecar: Option<Held>,
    /// Why the sidecar could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    sidecar_unknown: Option<String>,
}

/// Explains, and ends the program with 1 if some of such requests get an error of the mesh, or if the client's sidecar holds other routes.
pub(crate) fn run(config: &Explain) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let said = runtime.block_on(explained(config))?;
    config.output.say(&said, || text(&said.explanation) + &said.sidecar.as_ref().map(Held::text).unwrap_or_default())?;
    if let Some(why) = &said.sidecar_unknown {
        eprintln!("the pod's sidecar cannot be asked: {why}");
    }
    let is_live = said.sidecar_unknown.is_none() && said.sidecar.is_none_or(|held| held.is_live);
    let is_well = match said.explanation.outcome.kind {
        OutcomeKind::PassesThrough | OutcomeKind::Forwarded | OutcomeKind::Answered => is_live,
        OutcomeKind::PartlyForwarded | OutcomeKind::Refused => false,
    };
    if !is_well {
        exit(1);
    }
    Ok(())
}

async fn explained(config: &Explain) -> anyhow::Result<Said> {
    let (namespace, pod) = config.from.split_once('/').map_or((config.from.as_str(), None), |(namespace, pod)| (namespace, Some(pod)));
    let mut asked = asked(config, namespace)?;
    let client = match &config.filename {
        Some(_) => None,
        None => Some(kubernetes::client(config.context.as_ref()).await?),
    };
    let pod = match (&client, pod) {
        (Some(client), Some(pod)) => Some(Pod::find(client, namespace, pod).await?),
        (None, Some(pod)) => bail!("--from {namespace}/{pod}: manifests have no running pod; --from {namespace}"),
        (_, None) => None,
    };
    if let Some(pod) = &pod {
        pod.place(&mut asked.location);
    }
    let objects = match (&client, &config.filename) {
        (Some(client), _) => {
            let settings = kubernetes::settings(client, &config.controller_namespace).await?;
            objects::of_cluster(client, settings).await
        }
        (None, Some(path)) => objects::of_client(path, &config.cluster)?,
        (None, None) => bail!("neither a cluster nor a folder"),
    };
    asked.location.cluster.clone_from(&objects.cluster);
    // As in a cluster: what cannot be read counts as absent.
    objects.faults.iter().for_each(|fault| eprintln!("{fault}; it counts as absent"));
    let explanation = explain(&objects.world, &asked).with_context(|| match &config.filename {
        Some(path) => format!("{}: are the cluster's Services and ServiceImports in it?", path.display()),
        None => "in this cluster".to_owned(),
    })?;
    let held = match &pod {
        Some(pod) => Some(pod.held(&objects.world, &explanation, namespace).await),
        None => None,
    };
    let (sidecar, sidecar_unknown) = match held {
        Some(Ok(held)) => (Some(held), None),
        Some(Err(error)) => (None, Some(format!("{error:#}"))),
        None => (None, None),
    };
    Ok(Said { explanation, sidecar, sidecar_unknown })
}

fn asked(config: &Explain, namespace: &str) -> anyhow::Result<Asked> {
    let (method, url) = config.request.split_once(' ').unwrap_or(("GET", &config.request));
    let (uri, authority, port) = url::parse(url)?;
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
        client_namespace: namespace.to_owned(),
        location: Location { cluster: config.cluster.clone(), node: config.node.clone(), zone: config.zone.clone() },
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
        let mark = if route.in_force { Tone::Good.paint("in force") } else { Tone::Doubtful.paint("left out") };
        text += &format!("route     {mark}: {} {}: {}\n", route.kind, route.route, route.why);
        let dropped = Tone::Doubtful.paint("dropped");
        text.extend(route.dropped.iter().map(|why| format!("            {dropped}: {why}\n")));
    }
    for candidate in matches {
        let mark = match candidate.verdict {
            Verdict::Won => Tone::Good.paint("WON "),
            Verdict::Lost => Tone::Faint.paint("lost"),
            Verdict::Mismatched => Tone::Faint.paint("no  "),
        };
        let (rank, route, rule, asks, why) = (candidate.rank, &candidate.route, candidate.rule, &candidate.asks, &candidate.why);
        text += &format!("match {rank:<3} {mark} {route} rule {rule}: {asks}: {why}\n");
    }
    text.extend(filters.iter().map(|applied| filter("", applied)));
    text.extend(backends.iter().map(backend));
    let answer = match (outcome.status, outcome.reason) {
        (Some(status), Some(reason)) => format!("{status} {reason}: "),
        (_, _) => String::new(),
    };
    let tone = match outcome.kind {
        OutcomeKind::PassesThrough | OutcomeKind::Forwarded | OutcomeKind::Answered => Tone::Good,
        OutcomeKind::PartlyForwarded => Tone::Doubtful,
        OutcomeKind::Refused => Tone::Bad,
    };
    text + &format!("outcome   {}\n", tone.paint(&format!("{answer}{}", outcome.message)))
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
        text += &format!("            {}: {}\n", Tone::Bad.paint("instead"), instead.message);
    }
    text
}
