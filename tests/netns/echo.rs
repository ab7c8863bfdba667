//! What the tests rely on: the lab's echo server, and what the lab writes about its pods.

use std::io::{BufReader, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::{SinkExt, StreamExt};
use http::Version;
use lab::client::{Answer, Ask, Connection};
use lab::lab::Options;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tests::{Bed, yaml};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;

use super::bytes::{dial, inside};

const STORE: &str = "store.default.svc.cluster.local";

fn bed() -> Bed {
    let files = [("west/client.yaml", yaml::client("default")), ("west/store.yaml", yaml::app("store", "default", 2))];
    Bed::start(&files, Options::default()).expect("a lab")
}

/// Fields of a Service that its import repeats.
const IMPORTED: &str =
    "internalTrafficPolicy: Local, trafficDistribution: PreferClose, sessionAffinityConfig: {clientIP: {timeoutSeconds: 5}}";

/// A Deployment with an annotation on its pods, and its Service.
fn annotated(name: &str, replicas: usize, annotations: &str) -> String {
    let ports = "[{name: http, containerPort: 8080}, {name: tls-web, containerPort: 8443}]";
    let labels = format!("labels: {{app: {name}}}");
    let pods = yaml::deployment(name, "default", replicas, ports).replace(&labels, &format!("{labels}, annotations: {{{annotations}}}"));
    let ports = "[{name: http, port: 80, targetPort: 8080}, {name: tls, port: 443, targetPort: tls-web}]";
    yaml::all(&[pods, yaml::service(name, "default", ports, IMPORTED)])
}

#[test]
fn a_grpc_call_is_answered_with_one_message_and_a_status() {
    let bed = bed();
    let client = bed.client().expect("a client");
    let ask = |ask: Ask| bed.ask_in(&client, STORE, Version::HTTP_2, &ask).expect("an answer");
    let answer = ask(Ask::grpc(STORE, "/echo.Echo/Say"));
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, Some("application/grpc")));
    let seen = answer.seen();
    assert_eq!((seen["path"].as_str(), seen["body"].as_str()), (Some("/echo.Echo/Say"), Some("")), "{answer:?}");
    assert_eq!(answer.grpc_status(), Some(0));
    let answer = ask(Ask::grpc(STORE, "/echo.Echo/Say").with("x-grpc-status", "7").with("x-delay-ms", "30"));
    assert_eq!((answer.status.as_u16(), answer.grpc_status()), (200, Some(7)));
    assert!(answer.took >= Duration::from_millis(30), "{answer:?}");
    assert_eq!(bed.get(STORE, "/").expect("an answer").grpc_status(), None);
}

#[test]
fn the_first_attempts_of_a_key_fail_whichever_pod_they_reach() {
    let bed = bed();
    let status = |target: &str| {
        let answer = bed.get(STORE, target).expect("an answer");
        (answer.status.as_u16(), answer.seen()["attempt"].as_u64())
    };
    let answers = || [(); 3].map(|()| status("/?fail=2&id=a&status=503"));
    assert_eq!(answers(), [(503, Some(1)), (503, Some(2)), (200, Some(3))]);
    assert_eq!(status("/?fail=1&id=b"), (500, Some(1)), "another key");
    assert_eq!(status("/?fail=1&id=b"), (200, Some(2)));
    assert_eq!(status("/"), (200, None));
    assert_eq!((status("/?fail=1"), status("/?drop=1")), ((400, None), (400, None)), "of what?");
    for attempt in 1..=2 {
        bed.get(STORE, "/?drop=2&id=c").expect_err(&format!("attempt {attempt}"));
    }
    assert_eq!(status("/?drop=2&id=c"), (200, Some(3)));
}

#[test]
fn a_pod_says_what_it_was_asked() {
    let bed = bed();
    let pod = bed.pod("west/default/store-0").expect("a pod");
    let to = SocketAddr::new(bed.addresses(&pod).expect("addresses")[0], 8080).to_string();
    let before = bed.get(&to, "/-/seen?id=a").expect("an answer").seen();
    assert_eq!((before["count"].as_u64(), &before["last"]), (Some(0), &Value::Null));
    for target in ["/one?id=a", "/two?id=a", "/three"] {
        assert_eq!(bed.get(&to, target).expect("an answer").status, 200);
    }
    let client = bed.client().expect("a client");
    bed.ask(&client, &to, &Ask::get("x", "/four").with("x-id", "a")).expect("an answer");
    let seen = bed.seen("west/default/store-0", "a", 3).expect("seen");
    assert_eq!((seen["count"].as_u64(), seen["last"]["path"].as_str()), (Some(3), Some("/four")), "{seen}");
    let other = bed.seen("west/default/store-1", "a", 0).expect("seen");
    assert_eq!(other["count"], 0, "each pod counts for itself");
}

#[test]
fn a_slow_pod_answers_later() {
    let files =
        [("west/client.yaml", yaml::client("default")), ("west/slow.yaml", annotated("slow", 1, "isthmus.dev/lab-delay-ms: \"40\""))];
    let bed = Bed::start(&files, Options::default()).expect("a lab");
    let answer = bed.get("slow.default.svc.cluster.local", "/").expect("an answer");
    assert!(answer.took >= Duration::from_millis(40), "{answer:?}");
}

/// What a client does that trusts the lab's pods.
pub(crate) fn tls_client(bed: &Bed) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(bed.ca_pem().as_bytes())?)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    Ok(builder.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth())
}

/// A GET over TLS to one name, with another one to verify.
pub(crate) fn over_tls(bed: &Bed, to: &str, name: &str, version: Version) -> anyhow::Result<Answer> {
    let mut config = tls_client(bed)?;
    let protocol: &[u8] = if version == Version::HTTP_2 { b"h2" } else { b"http/1.1" };
    config.alpn_protocols = vec![protocol.to_vec()];
    let client = bed.client()?;
    let address = bed.address(&client, &format!("{to}:443"))?;
    let server = ServerName::try_from(name.to_owned())?;
    bed.namespace(&client)?.block_on(|| async move {
        let stream = tokio::net::TcpStream::connect(address).await?;
        let stream = TlsConnector::from(Arc::new(config)).connect(server, stream).await?;
        anyhow::ensure!(stream.get_ref().1.alpn_protocol() == Some(protocol), "ALPN");
        Connection::on(stream, version).await?.ask(&Ask::get(name, "/")).await
    })
}

#[test]
fn a_tls_port_has_a_certificate_for_the_names_of_its_pod() {
    let plain = annotated("plain", 1, "");
    let named = annotated("named", 1, "isthmus.dev/lab-tls-names: \"a.example.com, spiffe://lab/named\"");
    let files = [("west/client.yaml", yaml::client("default")), ("west/apps.yaml", yaml::all(&[plain, named]))];
    let bed = Bed::start(&files, Options::default()).expect("a lab");
    let [plain, named] = ["plain", "named"].map(|name| format!("{name}.default.svc.cluster.local"));
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for (to, name) in [(&plain, plain.as_str()), (&plain, "plain.default.svc.clusterset.local"), (&named, "a.example.com")] {
            let seen = over_tls(&bed, to, name, version).expect("an answer").seen();
            assert_eq!((seen["sni"].as_str(), seen["protocol"].as_str()), (Some(name), Some(format!("{version:?}").as_str())), "{seen}");
        }
    }
    over_tls(&bed, &named, &named, Version::HTTP_2).expect_err("the certificate is for the annotated names only");
    assert_eq!(bed.get(&plain, "/").expect("an answer").seen()["sni"], Value::Null, "the other port has no TLS");
}

/// What comes back for each of these frames.
pub(crate) fn frames(bed: &Bed, to: &str, sent: &[Message]) -> Vec<Message> {
    let client = bed.client().expect("a client");
    let address = bed.address(&client, to).expect("a VIP");
    let received = bed.namespace(&client).expect("its namespace").block_on(|| async move {
        let stream = tokio::net::TcpStream::connect(address).await?;
        let (mut socket, response) = tokio_tungstenite::client_async(format!("ws://{to}/"), stream).await?;
        anyhow::ensure!(response.headers().contains_key("x-served-by"), "{response:?}");
        let mut received = Vec::new();
        for message in sent {
            socket.send(message.clone()).await?;
            received.push(socket.next().await.context("an end")??);
        }
        socket.close(None).await?;
        Ok(received)
    });
    received.expect("frames")
}

#[test]
fn a_websocket_sends_frames_back_and_bytes_where_no_key_is_given() {
    let bed = bed();
    let sent = [Message::text("some text"), Message::binary(vec![0, 255])];
    assert_eq!(frames(&bed, STORE, &sent), sent);

    let address = bed.address(&bed.client().expect("a client"), STORE).expect("a VIP");
    let raw = inside(&bed, move || {
        let mut stream = BufReader::new(dial(address)?);
        let request = format!("GET / HTTP/1.1\r\nHost: {STORE}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        stream.get_mut().write_all(request.as_bytes())?;
        let head = super::store::head(&mut stream);
        anyhow::ensure!(head.starts_with("HTTP/1.1 101"), "{head}");
        stream.get_mut().write_all(b"no frame")?;
        stream.get_mut().shutdown(std::net::Shutdown::Write)?;
        let mut rest = String::new();
        stream.read_to_string(&mut rest)?;
        Ok(rest)
    });
    assert_eq!(raw, "no frame");
}

#[test]
fn what_is_written_about_pods_and_imports_follows_their_annotations() {
    let place = "isthmus.dev/lab-node: node-a, isthmus.dev/lab-zone: zone-a";
    let absent = yaml::export("hidden", "default").replace("name: hidden", "name: hidden, annotations: {isthmus.dev/lab-slices: absent}");
    let files = [
        ("west/client.yaml", yaml::client("default").replace("labels:", &format!("annotations: {{{place}}}, labels:"))),
        ("west/near.yaml", yaml::all(&[annotated("near", 1, place), yaml::export("near", "default")])),
        ("west/hidden.yaml", yaml::all(&[yaml::app("hidden", "default", 1), absent])),
    ];
    let mut bed = Bed::start(&files, Options::default()).expect("a lab");
    let written = |file: &str| bed.written("west", file).expect("documents");
    let of = |documents: &[Value], kind: &str, name: &str| {
        documents.iter().find(|document| document["kind"] == kind && document["metadata"]["name"] == name).cloned()
    };
    let (endpoints, imports) = (written("lab-endpoints.yaml"), written("lab-imports.yaml"));
    for slice in [of(&endpoints, "EndpointSlice", "near-ipv4"), of(&imports, "EndpointSlice", "import-near-west-ipv4")] {
        let endpoint = &slice.expect("a slice")["endpoints"][0];
        assert_eq!((endpoint["nodeName"].as_str(), endpoint["zone"].as_str()), (Some("node-a"), Some("zone-a")), "{endpoint}");
    }
    let spec = &of(&imports, "ServiceImport", "near").expect("an import")["spec"];
    let repeated = ["internalTrafficPolicy", "trafficDistribution", "sessionAffinityConfig"].map(|field| spec[field].clone());
    assert_eq!(repeated, [json!("Local"), json!("PreferClose"), json!({"clientIP": {"timeoutSeconds": 5}})]);
    assert_eq!(of(&imports, "EndpointSlice", "import-hidden-west-ipv4"), None);
    assert_eq!(of(&imports, "ServiceImport", "hidden").expect("an import")["status"]["endpointSliceObjects"], "Absent");

    let command = |bed: &Bed| {
        let pid = bed.sidecar_pid(&bed.client().expect("a client")).expect("a sidecar");
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("its arguments")
    };
    let started = command(&bed);
    assert!(started.contains("--node=node-a\0") && started.contains("--zone=zone-a\0"), "{started}");
    bed.apply("west/client.yaml", &yaml::client("default")).expect("in force");
    let started = command(&bed);
    assert!(!started.contains("--node") && !started.contains("--zone"), "another place is another sidecar: {started}");
    assert_eq!(bed.get("near.default.svc.cluster.local", "/").expect("an answer").status, 200);
}
