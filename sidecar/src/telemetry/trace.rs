//! Spans: W3C Trace Context in and out; what is sampled is exported over OTLP/gRPC in batches, by a task beside the data path.
//!
//! Invariant: a request never waits for a span: one that finds no room is dropped and counted.

use std::time::{Duration, Instant};

use ::http::{HeaderMap, HeaderName, HeaderValue};
use anyhow::{Context as _, ensure};
use prometheus_client::metrics::counter::Counter;
use proto::otlp::any_value::Value;
use proto::otlp::trace_service_client::TraceServiceClient;
use proto::otlp::{
    AnyValue, ExportTraceServiceRequest, KeyValue, Resource, ResourceSpans, Scope, ScopeSpans, Span, SpanKind, SpanStatus, StatusCode,
};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tracing::{info, warn};

use super::Told;
use crate::config::Config;

/// Spans that wait to be exported.
const SPANS_MAX: usize = 4096;
/// Spans of one export.
const BATCH_MAX: usize = 512;
/// What comes within this time is exported together.
const BATCH: Duration = Duration::from_secs(1);
/// And looked for this often.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A collector that does not take a batch within this time loses it.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// A sidecar that ends takes so long for what has not been exported yet.
const FAREWELL_MAX: Duration = Duration::from_secs(2);
/// Longest `tracestate` that is handed on (W3C Trace Context section 3.3.1.5 asks for at least 512).
const STATE_BYTES_MAX: usize = 1024;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// The flag of `traceparent` that says that the caller may have recorded.
const SAMPLED: u8 = 1;

/// Begins spans and hands them over.
#[derive(Debug)]
pub(crate) struct Tracer {
    /// Of 2^64 traces that begin here so many are sampled.
    threshold: u64,
    spans: mpsc::Sender<Span>,
    dropped: Counter,
}

/// A request's place in its trace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    trace_id: [u8; 16],
    /// None: the trace begins here.
    parent: Option<[u8; 8]>,
    span_id: [u8; 8],
    is_sampled: bool,
    state: String,
}

/// What takes spans to a collector.
pub(crate) struct Exporter {
    channel: Channel,
    spans: mpsc::Receiver<Span>,
    resource: Resource,
    dropped: Counter,
}

/// A tracer and its exporter, if a collector is named.
///
/// # Errors
/// The collector's address is none.
pub(crate) fn open(config: &Config) -> anyhow::Result<Option<(Tracer, Exporter)>> {
    let Some(address) = &config.otlp_endpoint else { return Ok(None) };
    let place = || format!("--otlp-endpoint {address:?}");
    let endpoint = Endpoint::from_shared(address.clone()).with_context(place)?;
    ensure!(endpoint.uri().scheme_str() == Some("http") && endpoint.uri().host().is_some(), "{}: http://HOST:PORT is wanted", place());
    ensure!((0.0..=1.0).contains(&config.trace_sampling), "--trace-sampling {}: a share from 0 to 1 is wanted", config.trace_sampling);
    let channel = endpoint.connect_timeout(EXPORT_TIMEOUT).timeout(EXPORT_TIMEOUT).connect_lazy();
    let (sender, spans) = mpsc::channel(SPANS_MAX);
    let dropped = Counter::default();
    let attributes = [
        ("service.name", "isthmus-sidecar"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("k8s.namespace.name", &config.namespace),
        ("k8s.pod.name", &config.pod),
        ("k8s.node.name", &config.node),
        ("k8s.cluster.name", &config.cluster),
    ];
    let resource = Resource {
        attributes: attributes.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| text(key, value)).collect(),
    };
    info!(collector = address, sampling = config.trace_sampling, "traces");
    let tracer = Tracer { threshold: threshold(config.trace_sampling), spans: sender, dropped: dropped.clone() };
    Ok(Some((tracer, Exporter { channel, spans, resource, dropped })))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a share of 2^64; casts from f64 saturate"
)]
fn threshold(sampling: f64) -> u64 {
    (sampling * u64::MAX as f64) as u64
}

impl Tracer {
    /// How many spans were dropped.
    pub(super) fn dropped(&self) -> Counter {
        self.dropped.clone()
    }

    /// Takes a request into its trace: the endpoint is to see this span as its parent. The caller's decision whether it is recorded stands;
    /// where a trace begins here it is drawn.
    pub(crate) fn begin(&self, headers: &mut HeaderMap, mut random: impl FnMut() -> u64) -> Place {
        let parent = headers.get(TRACEPARENT).and_then(|value| Parent::parse(value.as_bytes()));
        // Of several there is none that counts (section 3.2).
        let parent = parent.filter(|_| headers.get_all(TRACEPARENT).iter().count() == 1);
        let mut span_id = random().to_be_bytes();
        if span_id == [0; 8] {
            span_id[7] = 1;
        }
        let place = match parent {
            Some(parent) => Place {
                trace_id: parent.trace_id,
                parent: Some(parent.span_id),
                span_id,
                is_sampled: parent.flags & SAMPLED != 0,
                state: state(headers),
            },
            None => {
                headers.remove(TRACESTATE);
                let (high, low) = (random().max(1), random());
                let mut trace_id = [0; 16];
                trace_id[..8].copy_from_slice(&high.to_be_bytes());
                trace_id[8..].copy_from_slice(&low.to_be_bytes());
                let is_sampled = self.threshold == u64::MAX || random() < self.threshold;
                Place { trace_id, parent: None, span_id, is_sampled, state: String::new() }
            }
        };
        if let Ok(mut value) = HeaderValue::from_bytes(&place.traceparent()) {
            // No two are equal: in HPACK's table they would only drive out what comes again (RFC 7541 section 7.1.3).
            value.set_sensitive(true);
            headers.insert(TRACEPARENT, value);
        }
        place
    }

    /// Hands over the span of a request that has ended.
    pub(super) fn tell(&self, place: Place, told: &Told) {
        if place.is_sampled && self.spans.try_send(span(place, told)).is_err() {
            self.dropped.inc();
        }
    }
}

fn state(headers: &HeaderMap) -> String {
    let lines: Vec<&str> = headers.get_all(TRACESTATE).iter().filter_map(|line| line.to_str().ok()).collect();
    Some(lines.join(",")).filter(|state| state.len() <= STATE_BYTES_MAX).unwrap_or_default()
}

impl Place {
    fn traceparent(&self) -> [u8; 55] {
        let mut text = *b"00-................................-................-0.";
        write_hex(&mut text[3..35], &self.trace_id);
        write_hex(&mut text[36..52], &self.span_id);
        text[54] = b'0' + u8::from(self.is_sampled);
        text
    }
}

/// Two digits a byte, in lower case: on the path of every request, where formatting would cost more.
fn write_hex(text: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (digits, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *digits = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    }
}

/// What a `traceparent` says (W3C Trace Context section 3.2.2).
#[derive(Debug, Eq, PartialEq)]
struct Parent {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
}

impl Parent {
    /// None: it says nothing that counts.
    fn parse(value: &[u8]) -> Option<Self> {
        let value = std::str::from_utf8(value).ok()?;
        let mut fields = value.split('-');
        let (version, trace_id, span_id, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        // A later version may have more.
        if version == "ff" || (version == "00" && fields.next().is_some()) {
            return None;
        }
        hex(version, 2)?;
        let trace_id = hex(trace_id, 32).filter(|id| *id != 0)?;
        let span_id = u64::try_from(hex(span_id, 16).filter(|id| *id != 0)?).ok()?;
        let flags = u8::try_from(hex(flags, 2)?).ok()?;
        Some(Self { trace_id: trace_id.to_be_bytes(), span_id: span_id.to_be_bytes(), flags })
    }
}

/// So many digits, in lower case alone.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_hex = text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

/// The names are OpenTelemetry's semantic conventions for HTTP; ours say what was decided.
fn span(place: Place, told: &Told) -> Span {
    let start = told.time();
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let method = told.method.as_ref().map_or("", ::http::Method::as_str);
    let is_error = !told.reason.is_empty() || told.status >= 500;
    let error = match told.reason {
        "" if is_error => told.status.to_string(),
        reason => reason.to_owned(),
    };
    let texts = [
        ("http.request.method", method),
        ("network.protocol.name", told.protocol),
        ("url.path", &told.path),
        ("error.type", &error),
        ("isthmus.frontend", &told.frontend),
        ("isthmus.route", &told.route),
        ("isthmus.rule", &told.rule),
        ("isthmus.backend", &told.backend),
        ("isthmus.source_cluster", &told.source_cluster),
        ("isthmus.reason", told.reason),
    ];
    let mut attributes: Vec<KeyValue> =
        texts.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| text(key, value)).collect();
    let numbers = [("http.response.status_code", i64::from(told.status)), ("isthmus.retries", i64::from(told.retries))];
    attributes.extend(numbers.into_iter().filter(|(_, number)| *number != 0).map(|(key, number)| attribute(key, Value::IntValue(number))));
    if let Some(endpoint) = told.endpoint {
        attributes.push(text("network.peer.address", &endpoint.ip().to_string()));
        attributes.push(attribute("network.peer.port", Value::IntValue(endpoint.port().into())));
    }
    let target = if told.route.is_empty() { &told.frontend } else { &told.route };
    Span {
        trace_id: place.trace_id.to_vec(),
        span_id: place.span_id.to_vec(),
        trace_state: place.state,
        parent_span_id: place.parent.map(|parent| parent.to_vec()).unwrap_or_default(),
        name: format!("{method} {target}").trim_start().to_owned(),
        kind: SpanKind::Client.into(),
        start_time_unix_nano: nanos(start),
        end_time_unix_nano: nanos(start + told.total),
        attributes,
        status: is_error.then(|| SpanStatus { message: String::new(), code: StatusCode::Error.into() }),
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

impl Exporter {
    /// Exports until cancelled, and then what is left.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut client = TraceServiceClient::new(self.channel.clone());
        let mut is_well = true;
        loop {
            let mut batch = Vec::with_capacity(BATCH_MAX);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                count = self.spans.recv_many(&mut batch, BATCH_MAX) => if count == 0 { return },
            }
            self.fill(&mut batch, &stop).await;
            is_well = self.export(&mut client, batch, is_well).await;
        }
        let rest = async {
            while let Some(batch) = self.waiting() {
                self.export(&mut client, batch, is_well).await;
            }
        };
        if tokio::time::timeout(FAREWELL_MAX, rest).await.is_err() {
            let left: usize = std::iter::from_fn(|| self.waiting()).map(|batch| batch.len()).sum();
            self.dropped.inc_by(left as u64);
        }
    }

    /// Spans that are there already; none: there are none.
    fn waiting(&mut self) -> Option<Vec<Span>> {
        let spans: Vec<Span> = std::iter::from_fn(|| self.spans.try_recv().ok()).take(BATCH_MAX).collect();
        (!spans.is_empty()).then_some(spans)
    }

    /// What comes within a moment goes with it: looked for now and then, for to be woken for each span would cost more than the span.
    async fn fill(&mut self, batch: &mut Vec<Span>, stop: &CancellationToken) {
        let end = Instant::now() + BATCH;
        loop {
            let room = BATCH_MAX - batch.len();
            batch.extend(std::iter::from_fn(|| self.spans.try_recv().ok()).take(room));
            if batch.len() >= BATCH_MAX || Instant::now() >= end || stop.run_until_cancelled(sleep(LOOK_EVERY)).await.is_none() {
                return;
            }
        }
    }

    /// Whether it could; what is said is said once.
    async fn export(&self, client: &mut TraceServiceClient<Channel>, spans: Vec<Span>, was_well: bool) -> bool {
        let count = spans.len();
        let scope = Scope { name: "isthmus".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
        let request =
            ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { resource: Some(self.resource.clone()), scope_spans }] };
        match client.export(request).await {
            Ok(response) => {
                if let Some(partial) = response.into_inner().partial_success.filter(|partial| partial.rejected_spans > 0) {
                    self.dropped.inc_by(partial.rejected_spans.unsigned_abs());
                    warn!(rejected = partial.rejected_spans, message = partial.error_message, "the collector does not take all spans");
                }
                if !was_well {
                    info!("the collector takes spans again");
                }
                true
            }
            Err(status) => {
                self.dropped.inc_by(count as u64);
                if was_well {
                    warn!(%status, "the collector takes no spans; they are dropped");
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn tracer(sampling: f64) -> (Tracer, mpsc::Receiver<Span>) {
        let (spans, queue) = mpsc::channel(2);
        (Tracer { threshold: threshold(sampling), spans, dropped: Counter::default() }, queue)
    }

    fn numbers() -> impl FnMut() -> u64 {
        let mut next = 0;
        move || {
            next += 1;
            next
        }
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a value"))).collect()
    }

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_callers_trace_goes_on_and_its_decision_stands() {
        let (tracer, _queue) = tracer(0.0);
        let mut map = headers(&[("traceparent", PARENT), ("tracestate", "vendor=1")]);
        let place = tracer.begin(&mut map, numbers());
        assert!(place.is_sampled && place.state == "vendor=1");
        assert_eq!(place.parent, Some(0x00f0_67aa_0ba9_02b7_u64.to_be_bytes()));
        assert_eq!(map["traceparent"], "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000001-01");
        assert_eq!(map["tracestate"], "vendor=1");
        let mut map = headers(&[("traceparent", &PARENT.replace("-01", "-00"))]);
        assert!(!tracer.begin(&mut map, numbers()).is_sampled);
    }

    #[test]
    fn a_trace_that_begins_here_is_drawn() {
        for (sampling, expected) in [(0.0, false), (1.0, true)] {
            let (tracer, _queue) = tracer(sampling);
            let mut map = headers(&[("tracestate", "vendor=1")]);
            let place = tracer.begin(&mut map, numbers());
            assert_eq!((place.is_sampled, place.parent), (expected, None));
            assert!(!map.contains_key("tracestate"), "it belongs to no trace");
            assert_eq!(map["traceparent"], format!("00-0000000000000002000000000000000{}-0000000000000001-0{}", 3, u8::from(expected)));
        }
    }

    #[test]
    fn what_is_no_traceparent_begins_a_trace() {
        for value in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Parent::parse(value.as_bytes()), None, "{value}");
        }
        assert!(Parent::parse(format!("cc{}-more", &PARENT[2..]).as_bytes()).is_some(), "a later version may say more");
        let (tracer, _queue) = tracer(1.0);
        let mut map = headers(&[("traceparent", PARENT)]);
        map.append(TRACEPARENT, PARENT.parse().expect("a value"));
        assert_eq!(tracer.begin(&mut map, numbers()).parent, None, "of two none counts");
        assert_eq!(map.get_all(TRACEPARENT).iter().count(), 1);
    }

    #[test]
    fn a_span_says_what_was_decided_and_finds_room_or_is_counted() {
        let (tracer, mut queue) = tracer(1.0);
        let empty = "".into();
        let told = Told {
            route: "shop/store".into(),
            method: Some(::http::Method::GET),
            status: 503,
            reason: "no_endpoint",
            time: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1)),
            total: Duration::from_millis(5),
            ..Told::new("f".into(), &empty)
        };
        for _ in 0..3 {
            tracer.tell(tracer.begin(&mut HeaderMap::new(), numbers()), &told);
        }
        assert_eq!(tracer.dropped.get(), 1);
        let span = queue.try_recv().expect("a span");
        assert_eq!((span.name.as_str(), span.end_time_unix_nano), ("GET shop/store", 1_005_000_000));
        assert_eq!(span.status.map(|status| status.code), Some(StatusCode::Error.into()));
        let value = |key: &str| span.attributes.iter().find(|attribute| attribute.key == key).and_then(|found| found.value.clone()?.value);
        assert_eq!(value("error.type"), Some(Value::StringValue("no_endpoint".to_owned())));
        assert_eq!(value("http.response.status_code"), Some(Value::IntValue(503)));
        assert_eq!(value("isthmus.backend"), None, "what is not known is not said");
    }
}
