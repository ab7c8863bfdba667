//! What the sidecar tells about its work: metrics, and one access log line a request.
//!
//! Invariant: a request is told once, also when it was cancelled: the [`Record`] tells it when it is dropped.

mod access_log;
pub(crate) mod load;
mod state;
mod tap;
pub(crate) mod trace;

use std::hash::{BuildHasher as _, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{MappedRwLockReadGuard, Mutex};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::reason::Reason;
use crate::snapshot::Snapshot;
pub(crate) use access_log::AccessLog;
pub(crate) use tap::{Taps, TooMany, Wanted};
use trace::Tracer;

/// Before the name of every metric.
const PREFIX: &str = "isthmus_sidecar";
/// Upper bounds of the buckets of durations, in seconds.
const DURATION_BUCKETS_S: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// Series of one metric; what would be one more is counted under [`OVERFLOW`].
const SERIES_MAX: usize = 2000;
/// The value of every label of what is counted together because there are too many series.
const OVERFLOW: &str = "overflow";

/// The labels of a request.
#[derive(Clone, Debug, EncodeLabelSet, Eq, PartialEq)]
pub(crate) struct RequestLabels {
    frontend: Arc<str>,
    route: Arc<str>,
    rule: Arc<str>,
    backend: Arc<str>,
    source_cluster: Arc<str>,
    status: u16,
    reason: &'static str,
}

impl Hash for RequestLabels {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Self { frontend, route, rule, backend, source_cluster, status, reason } = self;
        hasher.write_u64(hash_of((frontend, route, rule, backend, source_cluster, status, reason)));
    }
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, PartialEq)]
struct FrontendLabel {
    frontend: Arc<str>,
}

impl Hash for FrontendLabel {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(hash_of(&self.frontend));
    }
}

/// One number of texts: a family's own hasher is slow with them, and is asked with each request.
fn hash_of(labels: impl Hash) -> u64 {
    static FAST: LazyLock<foldhash::fast::RandomState> = LazyLock::new(Default::default);
    FAST.hash_one(labels)
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RouteLabel {
    route: Arc<str>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct BackendLabel {
    backend: Arc<str>,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct CauseLabel {
    cause: &'static str,
}

/// What a client connection turned out to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ConnectionKind {
    /// HTTP/1.1 under routes.
    Http1,
    /// HTTP/2 under routes.
    Http2,
    /// Bytes as a TLSRoute or TCPRoute wants.
    Stream,
    /// Bytes to where they were going anyway.
    PassThrough,
    /// Closed: a loop, or what its routes cannot speak.
    Refused,
}

impl ConnectionKind {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Stream => "stream",
            Self::PassThrough => "pass_through",
            Self::Refused => "refused",
        }
    }
}

/// Counters, gauges and the access log; shared by all workers.
#[derive(Debug)]
pub(crate) struct Telemetry {
    requests: Capped<RequestLabels, Counter>,
    durations: Capped<FrontendLabel, Histogram>,
    connections: Family<KindLabel, Counter>,
    connections_open: Family<KindLabel, Gauge>,
    endpoint_connects: Family<ResultLabel, Counter>,
    endpoint_retries: Family<CauseLabel, Counter>,
    endpoint_ejections: Capped<BackendLabel, Counter>,
    mirrors: Family<ResultLabel, Counter>,
    redirect_loops: Capped<RouteLabel, Counter>,
    pass_through_bytes: Counter,
    /// 1 while the controller serves this sidecar.
    pub(crate) controller_connected: Gauge,
    state_changed: Gauge,
    overflow: Arc<str>,
    starts_without_state: Counter,
    access_log: Option<AccessLog>,
    tracer: Option<Tracer>,
    /// Who listens.
    pub(crate) taps: Taps,
    registry: Registry,
}

impl Telemetry {
    /// With or without an access log and traces.
    pub(crate) fn new(access_log: Option<AccessLog>, tracer: Option<Tracer>) -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let requests = counters();
        let durations: Family<FrontendLabel, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS_S));
        let (connections, connections_open) = (Family::default(), Family::default());
        let endpoint_connects = Family::default();
        let (endpoint_retries, mirrors) = (Family::default(), Family::default());
        let (redirect_loops, endpoint_ejections) = (counters(), counters());
        let (controller_connected, state_changed) = (Gauge::default(), Gauge::default());
        let (pass_through_bytes, starts_without_state) = (Counter::default(), Counter::default());
        registry.register(
            "starts_without_state",
            "Starts of the pod before the first state: its connections passed through until there was one",
            starts_without_state.clone(),
        );
        registry.register("requests", "Requests by what became of them", requests.clone());
        registry.register_with_unit(
            "request_duration",
            "From a request's head to the end of its response",
            Unit::Seconds,
            durations.clone(),
        );
        registry.register("connections", "Client connections by what they turned out to be", connections.clone());
        registry.register("connections_open", "Client connections that are open", connections_open.clone());
        registry.register("endpoint_connects", "Attempts to connect to endpoints", endpoint_connects.clone());
        registry.register("endpoint_retries", "Requests sent again: not processed, or as the route wants", endpoint_retries.clone());
        registry.register("endpoint_ejections", "Endpoints left out for a while because they failed", endpoint_ejections.clone());
        registry.register("mirrors", "Copies of requests", mirrors.clone());
        registry.register("redirect_loops", "Redirects of a request to itself", redirect_loops.clone());
        registry.register("pass_through_bytes", "Bytes passed through, both directions", pass_through_bytes.clone());
        registry.register("controller_connected", "1: the controller serves this sidecar", controller_connected.clone());
        registry.register_with_unit(
            "state_changed_timestamp",
            "When the state in force last changed",
            Unit::Seconds,
            state_changed.clone(),
        );
        let dropped = access_log.as_ref().map(AccessLog::dropped).unwrap_or_default();
        let spans_dropped = tracer.as_ref().map(Tracer::dropped).unwrap_or_default();
        registry.register(
            "spans_dropped",
            "Spans that were dropped because the collector does not take them, or not in time",
            spans_dropped,
        );
        registry.register("access_log_dropped", "Access log lines that were dropped because the log was full", dropped);
        Self {
            requests: Capped::new(requests),
            durations: Capped::new(durations),
            connections,
            connections_open,
            endpoint_connects,
            endpoint_retries,
            endpoint_ejections: Capped::new(endpoint_ejections),
            mirrors,
            redirect_loops: Capped::new(redirect_loops),
            pass_through_bytes,
            controller_connected,
            state_changed,
            overflow: OVERFLOW.into(),
            starts_without_state,
            access_log,
            tracer,
            taps: Taps::default(),
            registry,
        }
    }

    /// The metrics in Prometheus' text format, with what is in force now.
    pub(crate) fn encode(&self, snapshot: &Snapshot, own_connections: usize, now_ms: u64) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        let mut now = Registry::with_prefix(PREFIX);
        state::register(&mut now, snapshot, own_connections, now_ms);
        encode_registry(&mut text, &self.registry)?;
        encode_registry(&mut text, &now)?;
        encode_eof(&mut text)?;
        Ok(text)
    }

    /// One sample of every metric, with the names of its labels as their values.
    pub(crate) fn sample() -> Result<String, std::fmt::Error> {
        let telemetry = Arc::new(Self::new(None, None));
        let name = |name: &str| -> Arc<str> { name.into() };
        let requests = RequestLabels {
            frontend: name("frontend"),
            route: name("route"),
            rule: name("rule"),
            backend: name("backend"),
            source_cluster: name("source_cluster"),
            status: 200,
            reason: "reason",
        };
        telemetry.requests.of(&requests, || requests.clone()).inc();
        let frontend = FrontendLabel { frontend: name("frontend") };
        telemetry.durations.of(&frontend, || frontend.clone()).observe(0.0);
        drop(telemetry.connection(ConnectionKind::Http1));
        telemetry.endpoint_connect("connected");
        telemetry.retry("route");
        telemetry.ejection(&name("backend"));
        telemetry.redirect_loop(&name("route"));
        telemetry.mirror("answered");
        let mut text = telemetry.encode(&Snapshot::default(), 0, 0)?;
        text += &state::sample()?;
        Ok(text)
    }

    /// Takes note that another state is in force.
    pub(crate) fn state_changed(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.state_changed.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    }

    /// Counts an endpoint that is left out for a while.
    pub(crate) fn ejection(&self, backend: &Arc<str>) {
        self.endpoint_ejections
            .of(&BackendLabel { backend: Arc::clone(backend) }, || BackendLabel { backend: Arc::clone(&self.overflow) })
            .inc();
    }

    /// Counts a client connection for as long as the guard lives.
    pub(crate) fn connection(self: &Arc<Self>, kind: ConnectionKind) -> OpenConnection {
        let label = KindLabel { kind: kind.label() };
        self.connections.get_or_create(&label).inc();
        let open = self.connections_open.get_or_create_owned(&label);
        open.inc();
        OpenConnection(open)
    }

    /// Counts, once, that the pod started before the first state; whether this was the first time.
    pub(crate) fn started_without_state(&self) -> bool {
        self.starts_without_state.get() == 0 && self.starts_without_state.inc() == 0
    }

    /// Counts an attempt to connect to an endpoint.
    pub(crate) fn endpoint_connect(&self, result: &'static str) {
        self.endpoint_connects.get_or_create(&ResultLabel { result }).inc();
    }

    /// Counts a request that is sent again.
    pub(crate) fn retry(&self, cause: &'static str) {
        self.endpoint_retries.get_or_create(&CauseLabel { cause }).inc();
    }

    /// Counts a redirect of a request to itself.
    pub(crate) fn redirect_loop(&self, route: &Arc<str>) {
        let labels = RouteLabel { route: Arc::clone(route) };
        self.redirect_loops.of(&labels, || RouteLabel { route: Arc::clone(&self.overflow) }).inc();
    }

    /// Counts a copy of a request.
    pub(crate) fn mirror(&self, result: &'static str) {
        self.mirrors.get_or_create(&ResultLabel { result }).inc();
    }

    /// Counts bytes passed through.
    pub(crate) fn pass_through(&self, bytes: u64) {
        self.pass_through_bytes.inc_by(bytes);
    }
}

/// What makes counters that are registered before they are capped.
fn counters<S: Clone + Eq + Hash>() -> Family<S, Counter, fn() -> Counter> {
    Family::new_with_constructor(Counter::default)
}

/// A metric with no more than [`SERIES_MAX`] series, and one that stands for all others.
#[derive(Debug)]
struct Capped<S, M, C = fn() -> M> {
    family: Family<S, M, C>,
    known: Mutex<Vec<(S, M)>>,
}

impl<S: Clone + Eq + Hash, M: Clone, C: MetricConstructor<M>> Capped<S, M, C> {
    fn new(family: Family<S, M, C>) -> Self {
        Self { family, known: Mutex::default() }
    }

    /// The series of these labels, or that of `overflow` if there are too many.
    fn of(&self, labels: &S, overflow: impl FnOnce() -> S) -> MappedRwLockReadGuard<'_, M> {
        if let Some(series) = self.family.get(labels) {
            return series;
        }
        let mut known = self.known.lock();
        // Somebody else may have come first, also with the overflow.
        let labels = if known.len() < SERIES_MAX { labels.clone() } else { overflow() };
        if let Some(series) = self.family.get(&labels) {
            return series;
        }
        let series = self.family.get_or_create(&labels);
        known.push((labels, series.clone()));
        series
    }
}

/// A client connection that is open.
#[derive(Debug)]
pub(crate) struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What is known of one request; told when dropped.
#[derive(Debug)]
pub(crate) struct Record {
    telemetry: Arc<Telemetry>,
    began: Instant,
    told: Told,
    place: Option<trace::Place>,
}

/// What an access log line says.
#[derive(Debug)]
pub(crate) struct Told {
    /// Wall clock at the request's head; none: nobody wanted to hear of it then.
    pub(crate) time: Option<SystemTime>,
    /// Frontend that was dialled.
    pub(crate) frontend: Arc<str>,
    /// `NAMESPACE/NAME`; empty if none matched.
    pub(crate) route: Arc<str>,
    /// Name or position of the rule.
    pub(crate) rule: Arc<str>,
    /// Backend that was chosen.
    pub(crate) backend: Arc<str>,
    /// Cluster of the endpoint.
    pub(crate) source_cluster: Arc<str>,
    /// Endpoint that answered or was tried last.
    pub(crate) endpoint: Option<SocketAddr>,
    /// Request method; none of a stream.
    pub(crate) method: Option<::http::Method>,
    /// Request path, without the query.
    pub(crate) path: String,
    /// HTTP version of the client's side, or TLS or TCP.
    pub(crate) protocol: &'static str,
    /// Status that the client got; 0 if none.
    pub(crate) status: u16,
    /// Why the sidecar answered itself; empty if it did not.
    pub(crate) reason: &'static str,
    /// Times it was sent again.
    pub(crate) retries: u32,
    /// Time to the response's head.
    pub(crate) head: Option<Duration>,
    /// Time to the response's end.
    pub(crate) total: Duration,
    /// Body bytes to the client.
    pub(crate) bytes_sent: u64,
}

impl Told {
    /// Nothing is known yet.
    pub(crate) fn new(frontend: Arc<str>, empty: &Arc<str>) -> Self {
        let empty = || Arc::clone(empty);
        Self {
            time: None,
            frontend,
            route: empty(),
            rule: empty(),
            backend: empty(),
            source_cluster: empty(),
            endpoint: None,
            method: None,
            path: String::new(),
            protocol: "",
            status: 0,
            reason: "client_gone",
            retries: 0,
            head: None,
            total: Duration::ZERO,
            bytes_sent: 0,
        }
    }

    /// Wall clock at the request's head, since the epoch; for who hears of its end.
    fn time(&self) -> Duration {
        let time = self.time.or_else(|| SystemTime::now().checked_sub(self.total)).unwrap_or(UNIX_EPOCH);
        time.duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

impl Record {
    /// A request that begins now. It is large, and handed on often.
    pub(crate) fn begin(telemetry: &Arc<Telemetry>, frontend: Arc<str>, empty: &Arc<str>, head: &::http::request::Parts) -> Box<Self> {
        let mut told = Told::new(frontend, empty);
        told.method = Some(head.method.clone());
        told.protocol = if head.version == ::http::Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" };
        if telemetry.access_log.is_some() || telemetry.tracer.is_some() || telemetry.taps.is_any() {
            told.time = Some(SystemTime::now());
            head.uri.path().clone_into(&mut told.path);
        }
        Box::new(Self { telemetry: Arc::clone(telemetry), began: Instant::now(), told, place: None })
    }

    /// When the request's head had come.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// Takes the request into its trace, if there are traces.
    pub(crate) fn trace(&mut self, headers: &mut ::http::HeaderMap, random: impl FnMut() -> u64) {
        self.place = self.telemetry.tracer.as_ref().map(|tracer| tracer.begin(headers, random));
    }

    /// A connection of which nothing but its bytes is known.
    pub(crate) fn stream(telemetry: &Arc<Telemetry>, frontend: Arc<str>, empty: &Arc<str>, protocol: &'static str) -> Box<Self> {
        let told = Told { time: Some(SystemTime::now()), protocol, ..Told::new(frontend, empty) };
        Box::new(Self { telemetry: Arc::clone(telemetry), began: Instant::now(), told, place: None })
    }

    /// A connection was made, or refused for a reason.
    pub(crate) fn connected(&mut self, reason: Option<Reason>) {
        self.told.reason = reason.map_or("", Reason::label);
        self.told.head = Some(self.began.elapsed());
    }

    /// What will be told.
    pub(crate) fn told(&mut self) -> &mut Told {
        &mut self.told
    }

    /// The response's head is there since then.
    pub(crate) fn head(&mut self, status: ::http::StatusCode, reason: Option<Reason>, since: Instant) {
        self.told.status = status.as_u16();
        self.told.reason = reason.map_or("", Reason::label);
        self.told.head = Some(since.saturating_duration_since(self.began));
    }

    /// The response broke off after its head.
    pub(crate) fn broke(&mut self, reason: Reason) {
        self.told.reason = reason.label();
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.told.total = self.began.elapsed();
        let told = &self.told;
        let labels = RequestLabels {
            frontend: Arc::clone(&told.frontend),
            route: Arc::clone(&told.route),
            rule: Arc::clone(&told.rule),
            backend: Arc::clone(&told.backend),
            source_cluster: Arc::clone(&told.source_cluster),
            status: told.status,
            reason: told.reason,
        };
        let telemetry = &self.telemetry;
        let overflow = || Arc::clone(&telemetry.overflow);
        let overflowed = || RequestLabels {
            frontend: overflow(),
            route: overflow(),
            rule: overflow(),
            backend: overflow(),
            source_cluster: overflow(),
            ..labels.clone()
        };
        telemetry.requests.of(&labels, overflowed).inc();
        let frontend = FrontendLabel { frontend: Arc::clone(&told.frontend) };
        telemetry.durations.of(&frontend, || FrontendLabel { frontend: overflow() }).observe(told.total.as_secs_f64());
        telemetry.taps.tell(told);
        if let Some((tracer, place)) = telemetry.tracer.as_ref().zip(self.place.take()) {
            tracer.tell(place, told);
        }
        if let Some(log) = &self.telemetry.access_log {
            log.tell(told);
        }
    }
}
