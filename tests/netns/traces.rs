//! Spans reach a collector and belong to the trace that the endpoint sees.

use std::sync::mpsc::Receiver;
use std::time::Duration;

use lab::client::{Answer, Ask};
use lab::lab::Options;
use proto::otlp::any_value::Value;
use proto::otlp::{ExportTraceServiceRequest, Span};
use tests::collector::{self, ENDPOINT};
use tests::{Bed, yaml};

use super::store::{STORE, route};

/// A batch is exported within this time.
const EXPORTED_MAX: Duration = Duration::from_secs(10);
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";

/// A lab whose sidecars send spans to a collector beside the first client.
fn traced(sampling: &str) -> (Bed, Receiver<ExportTraceServiceRequest>) {
    let files = [
        ("west/client.yaml", yaml::client("default")),
        ("west/store.yaml", yaml::exported("store", "default", 1)),
        ("west/route.yaml", route(&[yaml::to_import("/cart", "store")])),
    ];
    let arguments = [format!("--otlp-endpoint={ENDPOINT}"), format!("--trace-sampling={sampling}")];
    let bed = Bed::start(&files, Options { sidecar_arguments: arguments.into(), ..Options::default() }).expect("a lab");
    let batches = collector::start(&bed, &bed.client().expect("a client")).expect("a collector");
    (bed, batches)
}

fn ask(bed: &Bed, path: &str, parent: Option<&str>) -> Answer {
    let ask = Ask::get("store", path);
    let ask = parent.into_iter().fold(ask, |ask, parent| ask.with("traceparent", parent).with("tracestate", "vendor=1"));
    bed.ask(&bed.client().expect("a client"), STORE, &ask).expect("an answer")
}

fn seen(answer: &Answer) -> String {
    let pairs: Vec<(String, String)> = serde_json::from_value(answer.seen()["headers"].clone()).expect("pairs");
    pairs.into_iter().filter(|(name, _)| name == "traceparent").map(|(_, value)| value).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn spans(batch: ExportTraceServiceRequest) -> Vec<Span> {
    batch.resource_spans.into_iter().flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
}

fn text(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
    }
}

#[test]
fn a_sampled_request_is_a_span_between_its_caller_and_its_endpoint() {
    let (bed, batches) = traced("0");
    let unsampled = ask(&bed, "/cart", Some(&format!("{PARENT}-00")));
    assert!(seen(&unsampled).ends_with("-00"), "the caller's decision stands: {}", seen(&unsampled));
    assert!(seen(&ask(&bed, "/cart", None)).ends_with("-00"), "drawn: never");
    let sampled = seen(&ask(&bed, "/cart", Some(&format!("{PARENT}-01"))));
    let refused = ask(&bed, "/none", Some(&format!("{PARENT}-01")));
    assert_eq!(refused.status, 404);
    let mut found = Vec::new();
    while found.len() < 2 {
        let batch = batches.recv_timeout(EXPORTED_MAX).expect("a batch");
        let pod = batch.resource_spans[0].resource.clone().expect("a resource").attributes;
        assert!(pod.iter().any(|attribute| attribute.key == "k8s.pod.name"), "{pod:?}");
        found.extend(spans(batch));
    }
    assert_eq!(found.len(), 2, "those that are sampled alone: {found:?}");
    let span = &found[0];
    assert_eq!(sampled, format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id)), "the endpoint sees this span");
    assert_eq!(format!("00-{}-{}", hex(&span.trace_id), hex(&span.parent_span_id)), PARENT, "whose parent is the caller's");
    assert_eq!(span.trace_state, "vendor=1");
    for (key, expected) in [
        ("http.request.method", "GET"),
        ("url.path", "/cart"),
        ("http.response.status_code", "200"),
        ("isthmus.route", "default/store"),
        ("isthmus.backend", "ServiceImport/default/store/80"),
        ("isthmus.source_cluster", "west"),
    ] {
        assert_eq!(text(span, key).as_deref(), Some(expected), "{key}");
    }
    assert_eq!(text(&found[1], "error.type").as_deref(), Some("no_route"));
}

#[test]
fn a_trace_can_begin_here_and_a_collector_that_is_away_harms_nothing() {
    let files = [
        ("west/client.yaml", yaml::client("default")),
        ("west/store.yaml", yaml::exported("store", "default", 1)),
        ("west/route.yaml", route(&[yaml::to_import("/cart", "store")])),
    ];
    let arguments = [format!("--otlp-endpoint={ENDPOINT}"), "--trace-sampling=1".to_owned()];
    let bed = Bed::start(&files, Options { sidecar_arguments: arguments.into(), ..Options::default() }).expect("a lab");
    let answer = ask(&bed, "/cart", None);
    assert_eq!(answer.status, 200);
    assert!(seen(&answer).ends_with("-01"), "{}", seen(&answer));
    super::store::metric(&bed, "isthmus_sidecar_spans_dropped_total 1");
}
