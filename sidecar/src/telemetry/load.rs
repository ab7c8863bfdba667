//! What is told to the controller about requests, so that it can draw them: how many went where lately, and which endpoints are left out.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::resources::load_reporting_client::LoadReportingClient;
use proto::resources::{EjectedEndpoint, Load, LoadReport};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tracing::debug;

use super::{RequestLabels, Telemetry, state};
use crate::control::Token;
use crate::snapshot::{Live, Snapshot};

/// How often it is told.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// A controller that has ended a stream of reports is not asked to take another one before this.
const REOPEN_AFTER: Duration = Duration::from_secs(60);

/// Frontend, route, backend, cluster of the endpoint; and why it ended before a backend, if it failed there.
type Way = ([Arc<str>; 4], &'static str);

/// Requests, and how many of them failed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Count {
    requests: u64,
    failed: u64,
}

impl RequestLabels {
    /// Whether the client was not served as it should be, for a reason that is not its own.
    fn is_failed(&self) -> bool {
        let is_of_the_client = ["", "client_gone", "request_aborted", "no_server_name", "stream_idle"].contains(&self.reason);
        self.status >= 500 || (self.status == 0 && !is_of_the_client)
    }
}

/// Makes reports of what was counted.
#[derive(Debug)]
pub(crate) struct Reporter {
    telemetry: Arc<Telemetry>,
    live: Live,
    /// When the process began.
    began: Instant,
    /// What had been counted by the last report.
    before: BTreeMap<Way, Count>,
    at: Instant,
    /// The last report said nothing.
    is_at_rest: bool,
}

impl Reporter {
    /// What is counted from now on will be told.
    pub(crate) fn new(telemetry: Arc<Telemetry>, live: Live, began: Instant) -> Self {
        let before = telemetry.counts();
        Self { telemetry, live, began, before, at: Instant::now(), is_at_rest: true }
    }

    /// What has happened since the last one; none: nothing, as before.
    fn report(&mut self) -> Option<LoadReport> {
        let counts = self.telemetry.counts();
        let mut loads = Vec::new();
        for (way, count) in &counts {
            let before = self.before.get(way).copied().unwrap_or_default();
            let requests = count.requests.saturating_sub(before.requests);
            if requests > 0 {
                let (names, reason) = way;
                let [frontend, route, backend, source_cluster] = names.clone().map(|name| name.to_string());
                let reason = (*reason).to_owned();
                let failed = count.failed.saturating_sub(before.failed);
                loads.push(Load { frontend, route, backend, source_cluster, requests, failed, reason });
            }
        }
        self.before = counts;
        let now = Instant::now();
        let interval_ms = millis(now - std::mem::replace(&mut self.at, now));
        let ejected = ejected(&self.live.load(), millis(self.began.elapsed()));
        let is_at_rest = loads.is_empty() && ejected.is_empty();
        let was_at_rest = std::mem::replace(&mut self.is_at_rest, is_at_rest);
        (!(is_at_rest && was_at_rest)).then_some(LoadReport { interval_ms, loads, ejected })
    }

    /// Tells the controller for as long as it is polled; what it does not take is told no second time.
    pub(crate) async fn run(&mut self, channel: Channel, token: &Token) -> Infallible {
        let client = LoadReportingClient::new(channel);
        let mut ticks = tokio::time::interval_at((Instant::now() + REPORT_EVERY).into(), REPORT_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stream: Option<Stream> = None;
        let mut opens_at = Instant::now();
        loop {
            tokio::select! {
                status = ended(&mut stream) => {
                    // A controller that is older than this does not know of it.
                    debug!(%status, "no load reports");
                    (stream, opens_at) = (None, Instant::now() + REOPEN_AFTER);
                }
                _ = ticks.tick() => {
                    let Some(report) = self.report() else { continue };
                    if stream.is_none() && Instant::now() >= opens_at {
                        // The token of now: the one that the connection began with may be over.
                        match token.metadata() {
                            Ok(metadata) => stream = Some(open(client.clone(), metadata)),
                            Err(error) => debug!(error = format!("{error:#}"), "no load reports"),
                        }
                    }
                    let told = stream.as_ref().is_some_and(|(reports, _)| reports.try_send(report).is_ok());
                    // That it is at rest is told again.
                    self.is_at_rest &= told;
                }
            }
        }
    }
}

/// Where reports go, and what ends when nobody takes them any more.
type Stream = (mpsc::Sender<LoadReport>, Pin<Box<dyn Future<Output = Status> + Send>>);

fn open(mut client: LoadReportingClient<Channel>, metadata: MetadataMap) -> Stream {
    let (reports, outgoing) = mpsc::channel(1);
    let mut request = Request::new(ReceiverStream::new(outgoing));
    *request.metadata_mut() = metadata;
    let call = async move { client.report(request).await.map_or_else(|status| status, |_| Status::ok("the controller ends")) };
    (reports, Box::pin(call))
}

async fn ended(stream: &mut Option<Stream>) -> Status {
    match stream {
        Some((_, call)) => call.await,
        None => pending().await,
    }
}

impl Telemetry {
    /// What has been counted of each way.
    fn counts(&self) -> BTreeMap<Way, Count> {
        let mut counts: BTreeMap<Way, Count> = BTreeMap::new();
        for (labels, requests) in self.requests.known.lock().iter() {
            let names = [&labels.frontend, &labels.route, &labels.backend, &labels.source_cluster].map(Arc::clone);
            let reason = if labels.backend.is_empty() && labels.is_failed() { labels.reason } else { "" };
            let count = counts.entry((names, reason)).or_default();
            count.requests += requests.get();
            count.failed += if labels.is_failed() { requests.get() } else { 0 };
        }
        counts
    }
}

fn ejected(snapshot: &Snapshot, now_ms: u64) -> Vec<EjectedEndpoint> {
    let ejected = state::endpoints(snapshot).filter(|(_, endpoint)| endpoint.state.is_ejected(now_ms));
    ejected
        .map(|(backend, endpoint)| EjectedEndpoint {
            backend: backend.to_string(),
            source_cluster: endpoint.cluster.to_string(),
            address: endpoint.address.to_string(),
        })
        .collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(telemetry: &Telemetry, route: &str, status: u16, reason: &'static str) {
        count_of(telemetry, route, "backend", status, reason);
    }

    fn count_of(telemetry: &Telemetry, route: &str, backend: &str, status: u16, reason: &'static str) {
        let name = |name: &str| -> Arc<str> { name.into() };
        let labels = RequestLabels {
            frontend: name("frontend"),
            route: name(route),
            rule: name("0"),
            backend: name(backend),
            source_cluster: name("west"),
            status,
            reason,
        };
        telemetry.requests.of(&labels, || labels.clone()).inc();
    }

    #[test]
    fn what_failed_before_a_backend_says_why() {
        let telemetry = Arc::new(Telemetry::new(None, None));
        let mut reporter = Reporter::new(Arc::clone(&telemetry), crate::control::empty(), Instant::now());
        for (backend, status, reason) in
            [("", 500, "invalid_backend"), ("", 500, "no_backend"), ("", 404, "no_route"), ("backend", 503, "no_endpoint")]
        {
            count_of(&telemetry, "shop/store", backend, status, reason);
        }
        let loads = reporter.report().expect("a report").loads;
        let said: Vec<_> = loads.iter().map(|load| (load.backend.as_str(), load.reason.as_str(), load.failed)).collect();
        assert_eq!(said, [("", "", 0), ("", "invalid_backend", 1), ("", "no_backend", 1), ("backend", "", 1)]);
    }

    #[test]
    fn a_report_says_what_was_counted_since_the_last_one_and_once_that_nothing_was() {
        let telemetry = Arc::new(Telemetry::new(None, None));
        count(&telemetry, "shop/old", 200, "");
        let mut reporter = Reporter::new(Arc::clone(&telemetry), crate::control::empty(), Instant::now());
        assert_eq!(reporter.report(), None, "what was before is nobody's concern");
        for (status, reason) in
            [(200, ""), (503, ""), (404, "no_route"), (502, "tls_failed"), (0, "client_gone"), (0, "no_server_name"), (0, "no_endpoint")]
        {
            count(&telemetry, "shop/store", status, reason);
        }
        count(&telemetry, "shop/old", 200, "");
        let loads = reporter.report().expect("a report").loads;
        let said: Vec<_> = loads.iter().map(|load| (load.route.as_str(), load.requests, load.failed)).collect();
        assert_eq!(said, [("shop/old", 1, 0), ("shop/store", 7, 3)]);
        assert_eq!(reporter.report().map(|report| report.loads.len()), Some(0), "it is at rest now");
        assert_eq!(reporter.report(), None);
        count(&telemetry, "shop/store", 200, "");
        assert_eq!(reporter.report().map(|report| report.loads.len()), Some(1));
    }
}
