//! TLSRoute (D-20): the server name of the ClientHello chooses, and TLS ends at the pod.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Version;
use lab::lab::Options;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tests::{Bed, who, yaml};

use super::{accepted, inside, route, said};
use crate::bytes::dial;
use crate::echo::{over_tls, tls_client};
use crate::store::log;

const FRONT: &str = "front.default.svc.clusterset.local";
/// A connection that goes nowhere ends within this time: well before any time limit of the sidecar's.
const QUICKLY: Duration = Duration::from_secs(5);

/// Pods that end TLS themselves, and their Service on port 443.
fn secure(name: &str, names: &str) -> String {
    let annotated = format!("labels: {{app: {name}}}, annotations: {{isthmus.dev/lab-tls-names: \"{names}\"}}");
    let pods = yaml::deployment(name, "default", 1, "[{name: tls-web, containerPort: 8443}]");
    let pods = pods.replace(&format!("labels: {{app: {name}}}"), &annotated);
    let service = yaml::service(name, "default", "[{name: tls, port: 443, targetPort: tls-web}]", "");
    yaml::all(&[pods, service, yaml::export(name, "default")])
}

fn tls_route(name: &str, hostnames: &str, backend: &str) -> String {
    let route = route("TLSRoute", name, "", &yaml::import("front", "sectionName: tls"), &[yaml::import(backend, "port: 443")]);
    if hostnames.is_empty() { route } else { route.replace("spec:\n", &format!("spec:\n  hostnames: [{hostnames}]\n")) }
}

/// `front` with a route for an exact name to `blue`, in the other cluster, and one for all under a domain to `green`.
fn bed() -> Bed {
    bed_with(Options::default())
}

fn bed_with(options: Options) -> Bed {
    let files = [
        ("west/client.yaml", yaml::client("default")),
        ("west/apps.yaml", yaml::all(&[secure("front", "front.example.com"), secure("green", "*.example.com, *.shop.example.com")])),
        ("east/apps.yaml", secure("blue", "a.example.com")),
        ("west/exact.yaml", tls_route("exact", "a.example.com", "blue")),
        ("west/wild.yaml", tls_route("wild", "\"*.example.com\"", "green")),
    ];
    Bed::start(&files, options).expect("a lab")
}

#[test]
fn the_server_name_chooses_exact_before_wildcard() {
    let bed = bed();
    for name in ["exact", "wild"] {
        assert_eq!(accepted(&bed, "TLSRoute", name), said("True", "Accepted"));
    }
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for (name, backend) in [("a.example.com", "east/blue"), ("b.example.com", "west/green"), ("x.shop.example.com", "west/green")] {
            let answer = over_tls(&bed, FRONT, name, version).expect("verified by the client");
            assert_eq!((who(&answer).as_str(), answer.seen()["sni"].as_str()), (backend, Some(name)), "{version:?}: {answer:?}");
        }
    }
}

/// What is left of a connection on which this was sent, once it has ended.
fn ended(bed: &Bed, sent: Vec<u8>) -> Vec<u8> {
    let address = bed.address(&bed.client().expect("a client"), &format!("{FRONT}:443")).expect("a VIP");
    inside(bed, move || {
        let began = Instant::now();
        let mut stream = dial(address)?;
        // It may be reset before all is sent.
        let _ = stream.write_all(&sent);
        let mut received = Vec::new();
        // A reset is an end as good as a clean one.
        let _ = stream.read_to_end(&mut received);
        anyhow::ensure!(began.elapsed() < QUICKLY, "after {:?}", began.elapsed());
        Ok(received)
    })
}

/// The first flight of a client, with or without a server name.
fn hello(bed: &Bed, name: Option<&str>) -> (ClientConnection, Vec<u8>) {
    let mut config = tls_client(bed).expect("a configuration");
    config.enable_sni = name.is_some();
    let name = ServerName::try_from(name.unwrap_or("a.example.com").to_owned()).expect("a name");
    let mut connection = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut hello = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut hello).expect("into memory");
    }
    (connection, hello)
}

#[test]
fn what_names_no_server_of_a_route_is_ended_at_once() {
    let bed = bed();
    for (what, sent) in [
        ("another name", hello(&bed, Some("a.example.org")).1),
        ("the domain itself", hello(&bed, Some("example.com")).1),
        ("no name", hello(&bed, None).1),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n".to_vec()),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec()),
    ] {
        assert_eq!(ended(&bed, sent), b"", "{what}");
    }
    let reasons = log(&bed, 5).iter().map(|line| line["reason"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>();
    assert_eq!(reasons, ["no_route", "no_route", "no_server_name", "no_server_name", "no_server_name"]);
}

#[test]
fn a_client_hello_may_come_byte_by_byte() {
    let bed = bed();
    let (mut connection, hello) = hello(&bed, Some("a.example.com"));
    let address = bed.address(&bed.client().expect("a client"), &format!("{FRONT}:443")).expect("a VIP");
    let answer = inside(&bed, move || {
        let mut stream = dial(address)?;
        stream.set_nodelay(true)?;
        for byte in hello {
            stream.write_all(&[byte])?;
        }
        let mut secured = rustls::Stream::new(&mut connection, &mut stream);
        secured.write_all(b"GET / HTTP/1.1\r\nHost: a.example.com\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        secured.read_to_string(&mut answer)?;
        Ok(answer)
    });
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("x-served-by: east/default/blue-0"), "{answer}");
}

#[test]
fn a_client_that_does_not_say_whom_it_wants_gets_no_more_time() {
    let bed = bed_with(Options { sidecar_arguments: vec!["--head-timeout-s=1".to_owned()], ..Options::default() });
    let hello = hello(&bed, Some("a.example.com")).1;
    for (what, sent) in [("nothing", Vec::new()), ("half of it", hello[..hello.len() / 2].to_vec())] {
        assert_eq!(ended(&bed, sent), b"", "{what}");
    }
}

#[test]
fn a_route_without_hostnames_is_refused() {
    let mut bed = bed();
    bed.apply("west/exact.yaml", &tls_route("exact", "", "blue")).expect("in force");
    assert_eq!(accepted(&bed, "TLSRoute", "exact"), said("False", "UnsupportedValue"));
    let answer = over_tls(&bed, FRONT, "b.example.com", Version::HTTP_11).expect("an answer");
    assert_eq!(who(&answer), "west/green", "the other route is none the worse for it");
    bed.apply("west/wild.yaml", &tls_route("wild", "10.0.0.1", "green")).expect("in force");
    assert_eq!(accepted(&bed, "TLSRoute", "wild"), said("False", "UnsupportedValue"), "an address is no name (L-4)");
    let answer = over_tls(&bed, FRONT, "front.example.com", Version::HTTP_11).expect("an answer");
    assert_eq!(who(&answer), "west/front", "no route is left: as without a mesh (M-8)");
}

#[test]
fn a_backend_that_cannot_be_had_ends_the_connection() {
    let mut bed = bed();
    bed.apply("west/exact.yaml", &tls_route("exact", "a.example.com", "missing")).expect("in force");
    let sent = hello(&bed, Some("a.example.com")).1;
    assert_eq!(ended(&bed, sent), b"");
    let answer = over_tls(&bed, FRONT, "b.example.com", Version::HTTP_2).expect("an answer");
    assert_eq!(who(&answer), "west/green");
}
