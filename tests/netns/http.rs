//! HTTP on its way through the sidecar: versions, filters, affinity, what is sent again, upgrades, and what is told about it all.

use std::collections::BTreeSet;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;

use bytes::Bytes;
use http::{Method, Version};
use lab::client::Ask;
use lab::lab::Options;
use serde_json::Value;
use tests::{Bed, who, yaml};

use super::bytes::{PATIENCE, dial, inside};
use super::store::{STORE, accept, bed, head, listen, log, own};

fn speaking(name: &str, app_protocol: &str) -> String {
    let ports = format!("[{{port: 80, targetPort: 8080, appProtocol: {app_protocol}}}]");
    let pods = yaml::deployment(name, "default", 1, "[{containerPort: 8080}]");
    yaml::all(&[pods, yaml::service(name, "default", &ports, ""), yaml::export(name, "default")])
}

#[test]
fn either_version_reaches_a_backend_of_either_version() {
    let rules = [yaml::to_import("/two", "two"), yaml::to_import("/one", "one"), yaml::to_import("/", "store")];
    let bed = bed(&rules, vec![("east/apps.yaml", yaml::all(&[speaking("two", "kubernetes.io/h2c"), speaking("one", "http")]))]);
    let client = bed.client().expect("a client");
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for (target, spoken) in [("/two?x=1&trailer", "HTTP/2.0"), ("/one?x=1&trailer", "HTTP/1.1"), ("/?x=1", "HTTP/1.1")] {
            let ask = Ask {
                method: Method::POST,
                headers: vec![("te".to_owned(), "trailers".to_owned()), ("x-mine".to_owned(), "1".to_owned())],
                body: Bytes::from_static(b"some body"),
                ..Ask::get(STORE, target)
            };
            let answer = bed.ask_in(&client, STORE, version, &ask).expect("an answer");
            let seen = answer.seen();
            assert_eq!(
                (seen["protocol"].as_str(), seen["body"].as_str()),
                (Some(spoken), Some("some body")),
                "{version:?} {target}: {seen}"
            );
            assert_eq!(
                (seen["host"].as_str(), seen["query"].as_str()),
                (Some(STORE), target.split_once('?').map(|(_, query)| query)),
                "{seen}"
            );
            if target.starts_with("/two") {
                let trailer = answer.trailers.as_ref().and_then(|trailers| trailers.get("x-trailer"));
                assert!(trailer.is_some() || version == Version::HTTP_11, "trailers pass: {answer:?}");
            }
        }
    }
    // gRPC needs HTTP/2 all the way, whatever the port says or does not say.
    let grpc =
        Ask { method: Method::POST, headers: vec![("content-type".to_owned(), "application/grpc".to_owned())], ..Ask::get(STORE, "/") };
    let answer = bed.ask_in(&client, STORE, Version::HTTP_2, &grpc).expect("an answer");
    assert_eq!(answer.seen()["protocol"], "HTTP/2.0");
}

#[test]
fn filters_are_obeyed_in_their_order() {
    let headers = "{matches: [{path: {value: /headers}}], filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-set, \
                   value: new}], add: [{name: x-add, value: more}], remove: [x-gone]}}, {type: ResponseHeaderModifier, \
                   responseHeaderModifier: {set: [{name: x-served-by, value: hidden}], add: [{name: x-extra, value: \"1\"}]}}], backendRefs: [B]}";
    let rewrite = "{matches: [{path: {value: /old}}], filters: [{type: URLRewrite, urlRewrite: {hostname: other.example.com, path: {type: \
                   ReplacePrefixMatch, replacePrefixMatch: /new}}}], backendRefs: [B]}";
    let redirect = "{matches: [{path: {value: /moved}}], filters: [{type: RequestRedirect, requestRedirect: {scheme: https, path: {type: \
                    ReplaceFullPath, replaceFullPath: /there}, statusCode: 301}}]}";
    let here = "{matches: [{path: {value: /here}}], filters: [{type: RequestRedirect, requestRedirect: {hostname: example.org}}]}";
    let rules = [headers, rewrite, redirect, here].map(|rule| rule.replace("[B]", &format!("[{}]", yaml::import("store", ""))));
    let ports = "[{name: http, port: 80, targetPort: 8080}, {name: alt, port: 8080, targetPort: 8080}]";
    let store = yaml::all(&[
        yaml::deployment("store", "default", 1, "[{containerPort: 8080}]"),
        yaml::service("store", "default", ports, ""),
        yaml::export("store", "default"),
    ]);
    let bed = bed(&rules, vec![("west/store.yaml", store)]);
    let client = bed.client().expect("a client");

    let ask =
        Ask { headers: vec![("x-gone".to_owned(), "1".to_owned()), ("x-add".to_owned(), "one".to_owned())], ..Ask::get(STORE, "/headers") };
    let answer = bed.ask(&client, STORE, &ask).expect("an answer");
    let seen: BTreeSet<(String, String)> = serde_json::from_value(answer.seen()["headers"].clone()).expect("pairs");
    let has = |name: &str, value: &str| seen.contains(&(name.to_owned(), value.to_owned()));
    assert!(has("x-set", "new") && has("x-add", "one") && has("x-add", "more") && !has("x-gone", "1"), "{seen:?}");
    assert_eq!((answer.header("x-served-by"), answer.header("x-extra")), (Some("hidden"), Some("1")));

    let seen = bed.get(STORE, "/old/shelf?x=1").expect("an answer").seen();
    assert_eq!((seen["host"].as_str(), seen["target"].as_str()), (Some("other.example.com"), Some("/new/shelf?x=1")), "{seen}");

    let answer = bed.get(STORE, "/moved/x?y").expect("an answer");
    let location = format!("https://{STORE}/there?y");
    assert_eq!((answer.status.as_u16(), answer.header("location"), answer.reason()), (301, Some(location.as_str()), Some("redirect")));
    let answer = bed.get(&format!("{STORE}:8080"), "/here/x").expect("an answer");
    assert_eq!(answer.header("location"), Some("http://example.org:8080/here/x"), "the port that was dialled (D-14)");
}

#[test]
fn affinity_keeps_one_endpoint() {
    let app = |name: &str, more: &str| {
        let pods = yaml::deployment(name, "default", 4, "[{containerPort: 8080}]");
        yaml::all(&[pods, yaml::service(name, "default", "[{port: 80, targetPort: 8080}]", more), yaml::export(name, "default")])
    };
    let rules = [yaml::to_import("/sticky", "sticky"), yaml::to_import("/spread", "spread")];
    let apps = yaml::all(&[app("sticky", "sessionAffinity: ClientIP"), app("spread", "")]);
    let pods = |bed: &Bed, target: &str| -> BTreeSet<String> {
        let one = || bed.get(STORE, target).expect("an answer").served_by().map(str::to_owned);
        (0..50).filter_map(|_| one()).collect()
    };
    let kept = bed(&rules, vec![("east/apps.yaml", apps.clone())]);
    assert_eq!(pods(&kept, "/sticky").len(), 1, "D-16");
    assert!(pods(&kept, "/spread").len() > 1);
    let ignored = Options { controller_arguments: vec!["--session-affinity=ignored".to_owned()], ..Options::default() };
    let files = [
        ("west/client.yaml", yaml::client("default")),
        ("west/store.yaml", yaml::exported("store", "default", 1)),
        ("west/route.yaml", yaml::route("store", "", &[yaml::import("store", "")], &rules)),
        ("east/apps.yaml", apps),
    ];
    assert!(pods(&Bed::start(&files, ignored).expect("a lab"), "/sticky").len() > 1, "where that was asked for");
}

#[test]
fn an_answer_of_the_sidecar_s_own_to_head_has_no_body() {
    let bed = bed(&[yaml::to_import("/cart", "store")], Vec::new());
    let client = bed.client().expect("a client");
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let ask = Ask { method: Method::HEAD, ..Ask::get(STORE, "/nowhere") };
        let answer = bed.ask_in(&client, STORE, version, &ask).expect("an answer");
        assert_eq!((answer.status.as_u16(), answer.reason(), answer.body.len()), (404, Some("no_route"), 0), "{version:?}");
    }
}

/// A route to a pod in which a test's own server takes connections.
fn own_server(app_protocol: &str) -> (Bed, TcpListener) {
    let bed = bed(&[yaml::to_import("/", "own")], vec![("east/own.yaml", own("own", app_protocol))]);
    let listener = listen(&bed, "east/default/own-0");
    (bed, listener)
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[test]
fn a_kept_connection_that_ends_before_any_answer_is_made_good() {
    for (method, body, is_made_good) in [(Method::GET, "", true), (Method::PUT, "some body", true), (Method::POST, "", false)] {
        let (bed, listener) = own_server("http");
        let server: JoinHandle<usize> = std::thread::spawn(move || {
            let mut first = accept(&listener);
            head(&mut first);
            first.get_mut().write_all(OK).expect("an answer");
            // The second request on it gets no answer.
            head(&mut first);
            drop(first);
            listener.set_nonblocking(!is_made_good).expect("set");
            if !is_made_good {
                return usize::from(listener.accept().is_ok());
            }
            let mut second = accept(&listener);
            let text = head(&mut second);
            let mut received = vec![0; if text.contains("content-length: 9") { 9 } else { 0 }];
            second.read_exact(&mut received).expect("the body, whole");
            second.get_mut().write_all(OK).expect("an answer");
            1
        });
        assert_eq!(bed.get(STORE, "/").expect("an answer").status, 200);
        let client = bed.client().expect("a client");
        let ask = Ask { method: method.clone(), body: Bytes::copy_from_slice(body.as_bytes()), ..Ask::get(STORE, "/") };
        let answer = bed.ask(&client, STORE, &ask).expect("an answer");
        if is_made_good {
            assert_eq!(answer.status, 200, "{method}");
        } else {
            assert_eq!((answer.status.as_u16(), answer.reason()), (503, Some("endpoint_reset")), "{method}: twice might be once too often");
        }
        assert_eq!(server.join().expect("the server"), usize::from(is_made_good), "{method}");
    }
}

#[test]
fn a_refused_stream_is_sent_again() {
    let (bed, listener) = own_server("kubernetes.io/h2c");
    listener.set_nonblocking(true).expect("non-blocking");
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let mut refused = 0;
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let mut connection = h2::server::handshake(stream).await.expect("a handshake");
                while let Some(Ok((_request, mut respond))) = connection.accept().await {
                    if refused < 2 {
                        refused += 1;
                        respond.send_reset(h2::Reason::REFUSED_STREAM);
                        continue;
                    }
                    respond.send_response(http::Response::new(()), true).expect("an answer");
                    connection.graceful_shutdown();
                    // Drives the connection to its end.
                    while connection.accept().await.is_some() {}
                    return refused;
                }
            }
        })
    });
    let client = bed.client().expect("a client");
    let ask = Ask { method: Method::POST, body: Bytes::from_static(b"a body"), ..Ask::get(STORE, "/") };
    assert_eq!(bed.ask(&client, STORE, &ask).expect("an answer").status, 200, "not processed, so also a POST");
    assert_eq!(server.join().expect("the server"), 2);
}

#[test]
fn a_request_whose_body_was_not_begun_is_made_good_whatever_the_method() {
    let (bed, listener) = own_server("http");
    let server = std::thread::spawn(move || {
        let mut first = accept(&listener);
        head(&mut first);
        first.get_mut().write_all(OK).expect("an answer");
        // The second request on it: its head alone, then the connection ends.
        let text = head(&mut first);
        assert!(text.starts_with("POST / "), "{text}");
        drop(first);
        let mut second = accept(&listener);
        head(&mut second);
        let mut received = [0; 9];
        second.read_exact(&mut received).expect("the body, whole");
        second.get_mut().write_all(OK).expect("an answer");
        received
    });
    assert_eq!(bed.get(STORE, "/").expect("an answer").status, 200);
    let address = bed.address(&bed.client().expect("a client"), STORE).expect("a VIP");
    let mut stream = BufReader::new(inside(&bed, move || dial(address)));
    stream.get_mut().write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n").expect("sent");
    // Only once the sidecar has noticed the end and asked again does the body come.
    let client = bed.client().expect("a client");
    let end = std::time::Instant::now() + PATIENCE;
    while !bed
        .sidecar_admin(&client, "/metrics")
        .expect("metrics")
        .contains("isthmus_sidecar_endpoint_retries_total{cause=\"unprocessed\"} 1")
    {
        assert!(std::time::Instant::now() < end, "it was not sent again");
    }
    stream.get_mut().write_all(b"some body").expect("sent");
    assert!(head(&mut stream).starts_with("HTTP/1.1 200"));
    assert_eq!(&server.join().expect("the server"), b"some body");
}

#[test]
fn a_stream_above_the_last_one_of_a_goaway_is_sent_again() {
    let (bed, listener) = own_server("kubernetes.io/h2c");
    let server = std::thread::spawn(move || {
        let (mut first, _) = listener.accept().expect("a connection");
        first.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        // By hand: an empty SETTINGS, then, once the request's HEADERS are there, GOAWAY with last stream 0 and NO_ERROR.
        first.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).expect("settings");
        let mut preface = [0; 24];
        first.read_exact(&mut preface).expect("a preface");
        loop {
            let mut frame = [0; 9];
            first.read_exact(&mut frame).expect("a frame");
            let length = usize::from(frame[1]) << 8 | usize::from(frame[2]);
            first.read_exact(&mut vec![0; length]).expect("its payload");
            if frame[3] == 1 {
                break;
            }
        }
        first.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).expect("goaway");
        let (second, _) = listener.accept().expect("another connection");
        second.set_nonblocking(true).expect("non-blocking");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let stream = tokio::net::TcpStream::from_std(second).expect("a stream");
            let mut connection = h2::server::handshake(stream).await.expect("a handshake");
            let (request, mut respond) = connection.accept().await.expect("a request").expect("a request");
            respond.send_response(http::Response::new(()), true).expect("an answer");
            connection.graceful_shutdown();
            while connection.accept().await.is_some() {}
            request.method().clone()
        })
    });
    let client = bed.client().expect("a client");
    let ask = Ask { method: Method::POST, body: Bytes::from_static(b"a body"), ..Ask::get(STORE, "/") };
    assert_eq!(bed.ask(&client, STORE, &ask).expect("an answer").status, 200, "not processed, so also a POST (RFC 9113 section 6.8)");
    assert_eq!(server.join().expect("the server"), Method::POST);
}

#[test]
fn an_upgraded_connection_carries_bytes_both_ways() {
    let (bed, listener) = own_server("http");
    let server = std::thread::spawn(move || {
        let mut stream = accept(&listener);
        let request = head(&mut stream).to_ascii_lowercase();
        assert!(request.contains("upgrade: websocket") && request.contains("connection: upgrade"), "{request}");
        stream
            .get_mut()
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nfirst")
            .expect("switched");
        let mut rest = String::new();
        stream.read_to_string(&mut rest).expect("bytes");
        stream.get_mut().write_all(b" last").expect("bytes");
        rest
    });
    let address: SocketAddr = bed.address(&bed.client().expect("a client"), STORE).expect("a VIP");
    let received = inside(&bed, move || {
        let mut stream = BufReader::new(dial(address)?);
        let request = format!("GET / HTTP/1.1\r\nHost: {STORE}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        stream.get_mut().write_all(request.as_bytes())?;
        let answer = head(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 101") && answer.to_ascii_lowercase().contains("upgrade: websocket"), "{answer}");
        let mut first = [0; 5];
        stream.read_exact(&mut first)?;
        stream.get_mut().write_all(b"from the client")?;
        stream.get_mut().shutdown(std::net::Shutdown::Write)?;
        let mut rest = String::new();
        stream.read_to_string(&mut rest)?;
        Ok((first, rest))
    });
    assert_eq!(received, (*b"first", " last".to_owned()));
    assert_eq!(server.join().expect("the server"), "from the client");
}

#[test]
fn an_upgraded_connection_is_waited_for_when_the_sidecar_is_told_to_end() {
    let (bed, listener) = own_server("http");
    let client = bed.client().expect("a client");
    let address = bed.address(&client, STORE).expect("a VIP");
    let mut stream = BufReader::new(inside(&bed, move || dial(address)));
    let request = format!("GET / HTTP/1.1\r\nHost: {STORE}\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes()).expect("sent");
    let mut endpoint = accept(&listener);
    head(&mut endpoint);
    endpoint.get_mut().write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n").expect("switched");
    head(&mut stream);
    bed.signal_sidecar(&client, nix::sys::signal::Signal::SIGTERM).expect("told");
    let end = std::time::Instant::now() + PATIENCE;
    while !bed.logs(&client).expect("logs").contains("drains") {
        assert!(std::time::Instant::now() < end, "it was told to end");
    }
    // Longer than it looks for connections, shorter than its grace period of a second.
    for _ in 0..20 {
        stream.get_mut().write_all(b"ping").expect("still there");
        let mut ping = [0; 4];
        endpoint.read_exact(&mut ping).expect("still there");
        assert!(bed.sidecar_admin(&client, "/livez").is_ok());
    }
}

#[test]
fn a_body_of_unknown_length_reaches_the_endpoint_whatever_the_method() {
    let bed = bed(&[yaml::to_import("/", "store")], Vec::new());
    let address = bed.address(&bed.client().expect("a client"), STORE).expect("a VIP");
    for method in ["GET", "POST", "DELETE"] {
        let answer = inside(&bed, move || {
            let mut stream = BufReader::new(dial(address)?);
            let request =
                format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n");
            stream.get_mut().write_all(request.as_bytes())?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        });
        assert!(answer.contains("\"body\":\"body\""), "{method}: {answer}");
    }
}

#[test]
fn an_idle_http2_connection_is_no_slow_head() {
    let files = [
        ("west/client.yaml", yaml::client("default")),
        ("west/store.yaml", yaml::exported("store", "default", 1)),
        ("west/route.yaml", yaml::route("store", "", &[yaml::import("store", "")], &[yaml::to_import("/", "store")])),
    ];
    let options = Options { sidecar_arguments: vec!["--head-timeout-s=1".to_owned()], ..Options::default() };
    let bed = Bed::start(&files, options).expect("a lab");
    let client = bed.client().expect("a client");
    let address = bed.address(&client, STORE).expect("a VIP");
    let ask = Ask::get(STORE, "/");
    bed.namespace(&client)
        .expect("its namespace")
        .block_on(|| async {
            let mut quiet = lab::client::Connection::open(address, Version::HTTP_2).await?;
            quiet.ask(&ask).await?;
            // Others are busy meanwhile, for much longer than a head may take.
            let end = std::time::Instant::now() + std::time::Duration::from_secs(4);
            let mut busy = lab::client::Connection::open(address, Version::HTTP_2).await?;
            while std::time::Instant::now() < end {
                busy.ask(&ask).await?;
            }
            quiet.ask(&ask).await
        })
        .expect("it is still there");
}

#[test]
fn every_request_is_told_with_the_reason_for_its_answer() {
    let rule = format!("{{name: carts, matches: [{{path: {{value: /cart}}}}], backendRefs: [{}]}}", yaml::import("store", "port: 80"));
    let bed = bed(&[rule], Vec::new());
    let client = bed.client().expect("a client");
    bed.get(STORE, "/cart/x?secret=1").expect("an answer");
    bed.get(STORE, "/nowhere").expect("an answer");
    let lines = log(&bed, 2);
    let of = |index: usize, field: &str| lines[index][field].as_str().unwrap_or_default().to_owned();
    assert_eq!(of(0, "frontend"), "ServiceImport/default/store/80");
    assert_eq!((of(0, "route"), of(0, "rule")), ("default/store".to_owned(), "carts".to_owned()));
    assert_eq!((of(0, "backend"), of(0, "source_cluster")), ("ServiceImport/default/store/80".to_owned(), "west".to_owned()));
    assert_eq!((of(0, "path"), of(0, "reason")), ("/cart/x".to_owned(), String::new()), "no query in the log");
    assert!(of(0, "endpoint").ends_with(":8080") && lines[0]["total_us"].as_u64() >= lines[0]["head_us"].as_u64(), "{}", lines[0]);
    assert_eq!((lines[1]["status"].as_u64(), of(1, "reason")), (Some(404), "no_route".to_owned()));

    let metrics = bed.sidecar_admin(&client, "/metrics").expect("metrics");
    let counted = "isthmus_sidecar_requests_total{frontend=\"ServiceImport/default/store/80\",route=\"default/store\",rule=\"carts\"";
    assert!(
        metrics.contains(counted) && metrics.contains("reason=\"no_route\"") && metrics.contains("access_log_dropped_total 0"),
        "{metrics}"
    );
    let config: Value = serde_json::from_str(&bed.sidecar_admin(&client, "/config").expect("config")).expect("JSON");
    assert_eq!(config["frontends"][0]["routes"][0]["rules"][0]["backends"][0]["endpoints"].as_array().map(Vec::len), Some(2), "{config}");
}

#[test]
fn a_request_that_nobody_waits_for_any_more_is_told_and_let_go() {
    let (bed, listener) = own_server("http");
    let address = bed.address(&bed.client().expect("a client"), STORE).expect("a VIP");
    let mut stream = inside(&bed, move || dial(address));
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {STORE}\r\n\r\n").as_bytes()).expect("sent");
    let mut endpoint = accept(&listener);
    head(&mut endpoint);
    drop(stream);
    let line = log(&bed, 1).remove(0);
    assert_eq!((line["status"].as_u64(), line["reason"].as_str()), (Some(0), Some("client_gone")), "{line}");
    assert_eq!(endpoint.read(&mut [0]).expect("an end"), 0, "the endpoint need not go on either");
}

#[test]
fn what_a_kubelet_reaches_tells_nothing_about_routes() {
    let files = [("west/client.yaml", yaml::client("default")), ("west/store.yaml", yaml::exported("store", "default", 1))];
    let options = Options { sidecar_arguments: vec!["--health=[::]:15020".to_owned()], ..Options::default() };
    let bed = Bed::start(&files, options).expect("a lab");
    let client = bed.client().expect("a client");
    let store = bed.pod("west/default/store-0").expect("a pod");
    let address = SocketAddr::new(bed.addresses(&client).expect("addresses")[0], 15020);
    for (target, status) in [("/livez", 200), ("/readyz", 200), ("/metrics", 200), ("/config", 404)] {
        let answer = bed.ask(&store, &address.to_string(), &Ask::get("x", target)).expect("an answer");
        assert_eq!(answer.status.as_u16(), status, "{target}");
    }
    let admin = SocketAddr::new(address.ip(), 15000).to_string();
    bed.ask(&store, &admin, &Ask::get("x", "/config")).expect_err("the admin port is on loopback only");
}

#[test]
fn a_server_that_is_gone_is_passed_over() {
    let mut bed = bed(&[yaml::to_import("/", "many")], vec![("east/many.yaml", yaml::exported("many", "default", 3))]);
    let gone = bed.pod("east/default/many-0").expect("a pod");
    bed.stop_server(&gone).expect("stopped");
    for _ in 0..30 {
        assert_eq!(who(&bed.get(STORE, "/").expect("an answer")), "east/many", "its endpoint is still listed");
    }
    for name in ["east/default/many-1", "east/default/many-2"] {
        let pod = bed.pod(name).expect("a pod");
        bed.stop_server(&pod).expect("stopped");
    }
    let answer = bed.get(STORE, "/").expect("an answer");
    assert_eq!((answer.status.as_u16(), answer.reason()), (503, Some("connect_failed")));
}
