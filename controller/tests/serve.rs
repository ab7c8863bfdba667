//! The whole controller on loopback: a directory of YAML in, resources and status out, changes followed.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use controller::config::Config;
use controller::index::Index;
use controller::registry::Registry;
use controller::revision::Revision;
use controller::run::Controller;
use controller::xds::Discovery;
use prost_types::value::Kind;
use proto::type_url;
use proto::xds::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use proto::xds::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use routing::api::Object;
use routing::model::Frontend;
use routing::world::Settings;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Streaming;

const STORE: &str = "apiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceImport\nmetadata: {name: store, namespace: shop}\nspec: {type: ClusterSetIP, ips: [10.201.0.1], ports: [{port: 80}]}\n";
const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: store, namespace: shop}\nspec:\n  parentRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: store}]\n  rules: [{matches: [{path: {value: /cart}}], backendRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: cart}]}]\n";
const CART: &str = "apiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceImport\nmetadata: {name: cart, namespace: shop}\nspec: {type: ClusterSetIP, ips: [10.201.0.2], ports: [{port: 80}]}\n";

struct Running {
    source: TempDir,
    status: TempDir,
    listen: SocketAddr,
    admin: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    async fn start(files: &[(&str, &str)]) -> Self {
        let source = tempfile::tempdir().expect("a directory");
        let status = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            fs::write(source.path().join(name), text).expect("written");
        }
        let directory = format!("dir:{}", source.path().display());
        let status_dir = status.path().display().to_string();
        let flags = [
            "--source",
            &directory,
            "--plaintext",
            "--cluster",
            "west",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--status-dir",
            &status_dir,
        ];
        let config = Config::parse_from(["isthmus-controller"].into_iter().chain(flags));
        let controller = Controller::bind(config).expect("bound");
        let (listen, admin) = controller.addresses().expect("addresses");
        let stop = CancellationToken::new();
        let task = tokio::spawn(controller.serve(stop.clone()));
        let running = Self { source, status, listen, admin, stop, task };
        running.settled(0).await;
        running
    }

    /// Replaces a file as editors do: beside, then renamed over.
    async fn write(&self, name: &str, text: &str) {
        let beside = self.source.path().join(".beside");
        fs::write(&beside, text).expect("written");
        fs::rename(beside, self.source.path().join(name)).expect("renamed");
    }

    /// Waits until the controller has read what the directory holds and every sidecar has acknowledged it.
    async fn settled(&self, sidecars: usize) {
        let digest = routing::manifest::digest(files(self.source.path()));
        let answer = self.get(&format!("/await?digest={digest}&sidecars={sidecars}&timeout_ms=20000")).await;
        assert_eq!(answer["settled"], true, "{answer}");
    }

    async fn get(&self, path: &str) -> Value {
        let answer = reqwest::get(format!("http://{}{path}", self.admin)).await.expect("an answer");
        answer.json().await.expect("JSON")
    }

    fn status(&self) -> Option<Value> {
        let text = fs::read_to_string(self.status.path().join("HTTPRoute.shop.store.yaml")).ok()?;
        serde_saphyr::from_str(&text).ok()
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.expect("joined").expect("ended well");
    }
}

fn files(root: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(root).expect("read").map(|entry| entry.expect("an entry"));
    entries.map(|entry| (entry.file_name().into_string().expect("UTF-8"), fs::read(entry.path()).expect("read"))).collect()
}

struct Sidecar {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Sidecar {
    async fn connect(running: &Running) -> Self {
        Self::connect_holding(running.listen, "").await
    }

    /// One that holds state of this revision from another replica.
    async fn connect_holding(listen: SocketAddr, revision: &str) -> Self {
        let (requests, receiver) = mpsc::channel(16);
        let mut client = AggregatedDiscoveryServiceClient::connect(format!("http://{listen}")).await.expect("connected");
        let revision = prost_types::Value { kind: Some(Kind::StringValue(revision.to_owned())) };
        let metadata = prost_types::Struct { fields: [(proto::REVISION_METADATA.to_owned(), revision)].into() };
        let node = Node { id: "shop/client".to_owned(), cluster: "west".to_owned(), metadata: Some(metadata), ..Default::default() };
        let first = DeltaDiscoveryRequest { node: Some(node), type_url: type_url::VIP.to_owned(), ..Default::default() };
        requests.send(first).await.expect("sent");
        let responses = client.delta_aggregated_resources(ReceiverStream::new(receiver)).await.expect("a stream").into_inner();
        Self { requests, responses }
    }

    async fn subscribe(&self, type_url: &str, name: &str) {
        let names = vec![name.to_owned()];
        let request = DeltaDiscoveryRequest { type_url: type_url.to_owned(), resource_names_subscribe: names, ..Default::default() };
        self.requests.send(request).await.expect("sent");
    }

    /// The next response, acknowledged.
    async fn next(&mut self) -> DeltaDiscoveryResponse {
        let response = self.responses.message().await.expect("a stream").expect("a response");
        let answer =
            DeltaDiscoveryRequest { type_url: response.type_url.clone(), response_nonce: response.nonce.clone(), ..Default::default() };
        self.requests.send(answer).await.expect("sent");
        response
    }
}

fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    response.resources.iter().map(|resource| resource.name.as_str()).collect()
}

fn frontend(response: &DeltaDiscoveryResponse) -> Frontend {
    let any = response.resources[0].resource.as_ref().expect("content");
    let wire: proto::resources::Frontend = prost::Message::decode(any.value.as_slice()).expect("a Frontend");
    wire.try_into().expect("converts")
}

#[tokio::test]
async fn changes_flow_from_files_to_sidecars_and_status() {
    let running = Running::start(&[("store.yaml", STORE), ("route.yaml", ROUTE)]).await;
    let mut sidecar = Sidecar::connect(&running).await;
    assert_eq!(names(&sidecar.next().await), ["10.201.0.1:80"]);
    sidecar.subscribe(type_url::FRONTEND, "ServiceImport/shop/store/80").await;
    let before = frontend(&sidecar.next().await);
    assert!(matches!(before.routes[0].rules[0].backends[0].target, routing::model::BackendTarget::Invalid(_)), "cart does not exist");
    running.settled(1).await;
    let reason = |condition: usize| running.status().expect("written")["status"]["parents"][0]["conditions"][condition]["reason"].clone();
    assert_eq!((reason(0), reason(1)), ("Accepted".into(), "BackendNotFound".into()));

    running.write("cart.yaml", CART).await;
    let after = frontend(&sidecar.next().await);
    assert!(matches!(after.routes[0].rules[0].backends[0].target, routing::model::BackendTarget::Backend(_)));
    running.settled(1).await;
    assert_eq!(reason(1), "ResolvedRefs");

    fs::remove_file(running.source.path().join("route.yaml")).expect("removed");
    assert_eq!(sidecar.next().await.removed_resources, ["10.201.0.1:80"]);
    assert_eq!(sidecar.next().await.removed_resources, ["ServiceImport/shop/store/80"]);
    running.settled(1).await;
    assert_eq!(running.status(), None);
    running.end().await;
}

#[tokio::test]
async fn a_bad_file_or_object_leaves_the_good_ones_in_force() {
    let running = Running::start(&[("store.yaml", STORE), ("route.yaml", ROUTE), ("cart.yaml", CART)]).await;
    running.write("cart.yaml", "kind: [\n").await;
    running
        .write("slice.yaml", "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s, namespace: shop}\naddressType: 4\n")
        .await;
    running.settled(0).await;
    let mut sidecar = Sidecar::connect(&running).await;
    assert_eq!(names(&sidecar.next().await), ["10.201.0.1:80"]);
    sidecar.subscribe(type_url::BACKEND, "ServiceImport/shop/cart/80").await;
    assert_eq!(names(&sidecar.next().await), ["ServiceImport/shop/cart/80"], "the last good form of cart.yaml");
    let metrics = reqwest::get(format!("http://{}/metrics", running.admin)).await.expect("an answer");
    assert_eq!(metrics.headers()["content-type"], proto::OPENMETRICS);
    let metrics = metrics.text().await.expect("text");
    assert!(metrics.contains("isthmus_controller_source_problems 2\n"), "{metrics}");
    running.end().await;
}

#[tokio::test]
async fn who_is_connected_is_said_until_it_goes() {
    let running = Running::start(&[("store.yaml", STORE)]).await;
    let mut sidecar = Sidecar::connect(&running).await;
    assert_eq!(names(&sidecar.next().await), Vec::<&str>::new(), "an empty index is said too");
    running.settled(1).await;
    let list = running.get("/sidecars").await;
    assert_eq!((list[0]["namespace"].clone(), list[0]["pod"].clone()), ("shop".into(), "client".into()));
    assert_eq!(list[0]["progress"]["acknowledged"], true);
    let late = running.get("/await?sidecars=2&timeout_ms=1").await;
    assert_eq!(late["reason"], "1 sidecars are connected");
    drop(sidecar);
    running.end().await;
}

#[tokio::test]
async fn a_stream_that_does_not_say_who_asks_is_refused() {
    let running = Running::start(&[]).await;
    let mut client = AggregatedDiscoveryServiceClient::connect(format!("http://{}", running.listen)).await.expect("connected");
    let request = DeltaDiscoveryRequest { type_url: type_url::VIP.to_owned(), ..Default::default() };
    let mut responses = client.delta_aggregated_resources(tokio_stream::iter([request])).await.expect("a stream").into_inner();
    let status = responses.message().await.expect_err("refused");
    assert_eq!(status.message(), "the first request of a stream says who asks: node is missing");
    running.end().await;
}

/// A replica whose source is the test itself: ServiceImports at resource versions.
struct Replica {
    index: Arc<Index>,
    listen: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Replica {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
        let listen = listener.local_addr().expect("an address");
        let (index, stop) = (Arc::new(Index::new(Settings::default())), CancellationToken::new());
        let discovery = Discovery::new(Arc::clone(&index), Arc::new(Registry::default()), None, TaskTracker::new(), stop.clone());
        let served = tonic::transport::Server::builder()
            .add_service(discovery)
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.clone().cancelled_owned());
        Self { index, listen, stop, task: tokio::spawn(served) }
    }

    /// What watches would show.
    fn see(&self, objects: &[&str], version: u64) {
        for text in objects {
            let value = serde_saphyr::from_str(text).expect("YAML");
            self.index.apply(Object::decode(&value).expect("decodes").expect("a kind that is read"));
        }
        self.index.raise("serviceimports", version);
        self.index.flush();
        self.index.saw(Revision::parse(&format!("serviceimports={version}")));
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.expect("joined").expect("ended well");
    }
}

#[tokio::test]
async fn a_replica_that_lags_serves_a_sidecar_when_it_has_caught_up_with_it() {
    let replica = Replica::start().await;
    replica.see(&[STORE, ROUTE], 5);
    let mut ahead = Sidecar::connect_holding(replica.listen, "serviceimports=7").await;
    let mut behind = Sidecar::connect_holding(replica.listen, "serviceimports=5").await;
    let first = behind.next().await;
    assert_eq!(
        (names(&first), first.system_version_info.as_str()),
        (vec!["10.201.0.1:80"], "serviceimports=5"),
        "who holds no more is served at once"
    );
    replica.see(&[&STORE.replace("10.201.0.1", "10.201.0.9")], 7);
    let first = ahead.next().await;
    let told = (names(&first), first.system_version_info.as_str());
    assert_eq!(told, (vec!["10.201.0.9:80"], "serviceimports=7"), "it was never told the older state");
    assert_eq!(names(&behind.next().await), ["10.201.0.9:80"]);
    drop((ahead, behind));
    replica.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_that_holds_what_nobody_will_see_again_is_served_all_the_same() {
    let replica = Replica::start().await;
    replica.see(&[STORE, ROUTE], 5);
    let mut sidecar = Sidecar::connect_holding(replica.listen, "serviceimports=900").await;
    assert_eq!(names(&sidecar.next().await), ["10.201.0.1:80"], "an API server restored from a backup has forgotten what the sidecar saw");
    drop(sidecar);
    replica.end().await;
}

#[tokio::test(start_paused = true)]
async fn before_the_source_has_been_read_whole_nobody_is_served() {
    let replica = Replica::start().await;
    let mut sidecar = Sidecar::connect_holding(replica.listen, "serviceimports=5").await;
    // Longer than a replica that lags is waited for; nothing but this clock can end it.
    assert!(tokio::time::timeout(Duration::from_secs(60), sidecar.responses.message()).await.is_err(), "an empty state was served");
    replica.see(&[STORE, ROUTE], 5);
    assert_eq!(names(&sidecar.next().await), ["10.201.0.1:80"]);
    drop(sidecar);
    replica.end().await;
}
