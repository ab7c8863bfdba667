//! Which endpoint gets a request: a far cluster keeps its share, and an endpoint that only fails is passed over for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Write};
use std::net::TcpListener;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Response, Version};
use lab::client::{Ask, Connection};
use lab::lab::Options;
use tests::{Bed, who, yaml};

use super::store::head;

const STORE: &str = "store.default.svc.clusterset.local";
/// Connections at once, each with its requests one after the other.
const CONNECTIONS: usize = 8;
/// Five points are then four standard deviations of a share of a half.
const REQUESTS: usize = 1600;

/// `store`, all of whose requests go to `many`.
fn bed(files: Vec<(&str, String)>) -> Bed {
    let route = yaml::route("store", "", &[yaml::import("store", "")], &[yaml::to_import("/", "many")]);
    let mut all = vec![
        ("west/client.yaml", yaml::client("default")),
        ("west/store.yaml", yaml::exported("store", "default", 1)),
        ("west/route.yaml", route),
    ];
    all.extend(files);
    Bed::start(&all, Options::default()).expect("a lab")
}

#[test]
fn a_far_cluster_keeps_its_share() {
    let labels = "labels: {app: many}";
    let far = yaml::exported("many", "default", 2).replace(labels, &format!("{labels}, annotations: {{isthmus.dev/lab-delay-ms: \"20\"}}"));
    let bed = bed(vec![("west/many.yaml", yaml::exported("many", "default", 2)), ("east/many.yaml", far)]);
    let client = bed.client().expect("a client");
    let address = bed.address(&client, STORE).expect("a VIP");
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let shares = bed.namespace(&client).expect("its namespace").block_on(|| async move {
            let flows = (0..CONNECTIONS).map(|_| async move {
                let mut connection = Connection::open(address, version).await?;
                let mut counts: BTreeMap<String, usize> = BTreeMap::new();
                for _ in 0..REQUESTS / CONNECTIONS {
                    let answer = connection.ask(&Ask::get(STORE, "/")).await?;
                    *counts.entry(who(&answer)).or_default() += 1;
                }
                anyhow::Ok(counts)
            });
            let mut all: BTreeMap<String, usize> = BTreeMap::new();
            for (name, count) in futures::future::try_join_all(flows).await?.into_iter().flatten() {
                *all.entry(name).or_default() += count;
            }
            Ok(all)
        });
        let shares = shares.expect("answers");
        assert_eq!(shares.values().sum::<usize>(), REQUESTS, "{shares:?}");
        assert!(shares["east/many"].abs_diff(REQUESTS / 2) <= REQUESTS / 20, "{version:?}: {shares:?}");
    }
}

/// So many pods that work, and so many in which the test's own servers run, behind one import in east.
fn many(good: usize, own: usize, app_protocol: &str) -> String {
    let pods = |name: &str, replicas, ports: &str| {
        yaml::deployment(name, "default", replicas, ports).replace(&format!("labels: {{app: {name}}}"), "labels: {app: many}")
    };
    let ports = format!("[{{port: 80, targetPort: 8080{app_protocol}}}]");
    let service = [yaml::service("many", "default", &ports, ""), yaml::export("many", "default")];
    yaml::all(&[vec![pods("good", good, "[{containerPort: 8080}]"), pods("bad", own, "[]")], service.to_vec()].concat())
}

fn listen(bed: &Bed, index: usize) -> (String, TcpListener) {
    let name = format!("east/default/bad-{index}");
    let pod = bed.pod(&name).expect("a pod");
    (name, bed.namespace(&pod).expect("its namespace").run(|| Ok(TcpListener::bind("[::]:8080")?)).expect("a listener"))
}

/// Answers every request with 500.
fn fail((name, listener): (String, TcpListener)) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(stream), name) = (stream, name.clone()) else { return };
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream);
                // Until the sidecar ends the connection.
                while std::io::BufRead::fill_buf(&mut stream).is_ok_and(|buffer| !buffer.is_empty()) {
                    head(&mut stream);
                    let answer = format!("HTTP/1.1 500 Internal Server Error\r\nx-served-by: {name}\r\ncontent-length: 0\r\n\r\n");
                    if stream.get_mut().write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// The pods that answered so many requests, one after the other, with the status that they gave.
fn answered(bed: &Bed, times: usize) -> Vec<(String, u16)> {
    let client = bed.client().expect("a client");
    let address = bed.address(&client, STORE).expect("a VIP");
    let answers = bed.namespace(&client).expect("its namespace").block_on(|| async move {
        let mut connection = Connection::open(address, Version::HTTP_2).await?;
        let mut answers = Vec::new();
        for _ in 0..times {
            let answer = connection.ask(&Ask::get(STORE, "/")).await?;
            answers.push((answer.served_by().unwrap_or("the sidecar").to_owned(), answer.status.as_u16()));
        }
        Ok(answers)
    });
    answers.expect("answers")
}

fn failed(answers: &[(String, u16)]) -> usize {
    answers.iter().filter(|(_, status)| *status == 500).count()
}

#[test]
fn an_endpoint_that_fails_five_times_in_a_row_is_passed_over() {
    let bed = bed(vec![("east/many.yaml", many(3, 1, ""))]);
    fail(listen(&bed, 0));
    let mut before = Vec::new();
    while failed(&before) < 5 {
        before.extend(answered(&bed, 1));
        assert!(before.len() < 1000, "it gets its share until then: {before:?}");
    }
    let after = answered(&bed, 50);
    assert_eq!(failed(&after), 0, "{after:?}");
    let pods: BTreeSet<&String> = after.iter().map(|(pod, _)| pod).collect();
    assert!(pods.len() > 1, "the others share what it had: {pods:?}");
}

#[test]
fn never_more_than_half_of_a_backend_is_passed_over() {
    let bed = bed(vec![("east/many.yaml", many(1, 3, ""))]);
    (0..3).for_each(|index| fail(listen(&bed, index)));
    // Each has failed five times in a row by then.
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut sent = 0;
    while counts.values().filter(|count| **count >= 5).count() < 2 {
        for (pod, _) in answered(&bed, 1).into_iter().filter(|(_, status)| *status == 500) {
            *counts.entry(pod).or_default() += 1;
        }
        sent += 1;
        assert!(sent < 1000, "{counts:?}");
    }
    let after = answered(&bed, 100);
    let bad: BTreeSet<&String> = after.iter().filter(|(_, status)| *status == 500).map(|(pod, _)| pod).collect();
    assert_eq!(bad.len(), 1, "two of four are passed over, the third is not however it fails: {after:?}");
    assert!(failed(&after) < after.len(), "and the good one has the rest");
}

/// Answers every call with UNAVAILABLE, in trailers behind a head that looks well.
fn fail_calls((name, listener): (String, TcpListener)) {
    listener.set_nonblocking(true).expect("non-blocking");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                let name = name.clone();
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                    while let Some(Ok((_request, mut respond))) = connection.accept().await {
                        let head = Response::builder().header("content-type", "application/grpc").header("x-served-by", &name);
                        let mut stream = respond.send_response(head.body(()).expect("a head"), false).expect("a head");
                        let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("14"))]);
                        stream.send_trailers(trailers).expect("trailers");
                    }
                });
            }
        });
    });
}

#[test]
fn unavailable_in_trailers_counts_as_a_failure() {
    let mut bed = bed(vec![("east/many.yaml", many(3, 1, ", appProtocol: kubernetes.io/h2c"))]);
    let grpc = yaml::route("store", "", &[yaml::import("store", "")], &[format!("{{backendRefs: [{}]}}", yaml::import("many", ""))]);
    bed.apply("west/route.yaml", &grpc.replace("kind: HTTPRoute", "kind: GRPCRoute")).expect("in force");
    fail_calls(listen(&bed, 0));
    let client = bed.client().expect("a client");
    let address = bed.address(&client, STORE).expect("a VIP");
    let (before, after) = bed
        .namespace(&client)
        .expect("its namespace")
        .block_on(|| async move {
            let mut connection = Connection::open(address, Version::HTTP_2).await?;
            let mut statuses = Vec::new();
            while statuses.iter().filter(|status| **status == Some(14)).count() < 5 && statuses.len() < 1000 {
                statuses.push(connection.ask(&Ask::grpc(STORE, "/echo.Echo/Say")).await?.grpc_status());
            }
            let mut after = Vec::new();
            for _ in 0..50 {
                after.push(connection.ask(&Ask::grpc(STORE, "/echo.Echo/Say")).await?.grpc_status());
            }
            Ok((statuses, after))
        })
        .expect("answers");
    assert!(before.len() < 1000, "it gets its share until then: {before:?}");
    assert_eq!(after, [Some(0); 50]);
    // What the call itself is to blame for is none of the endpoint's failures.
    for _ in 0..60 {
        let ask = Ask::grpc(STORE, "/echo.Echo/Say").with("x-grpc-status", "5");
        assert_eq!(bed.ask_in(&client, STORE, Version::HTTP_2, &ask).expect("an answer").grpc_status(), Some(5));
    }
    let mut pods = BTreeSet::new();
    for _ in 0..1000 {
        let answer = bed.ask_in(&client, STORE, Version::HTTP_2, &Ask::grpc(STORE, "/echo.Echo/Say")).expect("an answer");
        pods.extend(answer.served_by().map(str::to_owned));
        if pods.len() == 3 {
            return;
        }
    }
    panic!("one of the three was passed over: {pods:?}");
}

#[test]
fn one_success_forgives_failures_before_it() {
    let bed = bed(vec![("east/many.yaml", many(2, 0, ""))]);
    let client = bed.client().expect("a client");
    for round in 0..10 {
        // As many failures as do not suffice, even if all of them were of one endpoint.
        for _ in 0..4 {
            assert_eq!(bed.get(STORE, "/?status=500").expect("an answer").status, 500);
        }
        let mut pods = BTreeSet::new();
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while pods.len() < 2 {
            pods.extend(bed.get_from(&client, STORE, "/").expect("an answer").served_by().map(str::to_owned));
            assert!(std::time::Instant::now() < end, "one of them was passed over in round {round}");
        }
    }
}
