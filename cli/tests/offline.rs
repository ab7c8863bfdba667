//! What the program says of manifests alone: `lint` and `explain -f`.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/examples")
}

/// Standard output, standard error, and the exit status.
fn isthmus(arguments: &[&str]) -> (String, String, i32) {
    let output = Command::new(env!("CARGO_BIN_EXE_isthmus")).args(arguments).env_remove("RUST_BACKTRACE").output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (text(output.stdout), text(output.stderr), output.status.code().expect("no signal"))
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(path, text).expect("written");
    }
    folder
}

#[test]
fn the_examples_are_as_they_are_meant() {
    for entry in std::fs::read_dir(examples()).expect("examples") {
        let path = entry.expect("an entry").path();
        let (said, _, status) = isthmus(&["lint", "--strict", path.to_str().expect("a path")]);
        if path.ends_with("referencegrant") {
            let expected =
                "west/route.yaml: document 1: HTTPRoute foo/foo: error RefNotPermitted: ServiceImport/closed/bar needs a ReferenceGrant";
            assert!(said.contains(expected) && status == 1, "{said}");
        } else {
            assert_eq!((said.as_str(), status), ("0 errors, 0 warnings\n", 0), "{}", path.display());
        }
    }
}

#[test]
fn exports_of_all_clusters_are_imported_in_each() {
    let gamma = examples().join("gamma");
    let folder = gamma.to_str().expect("a path");
    let store = "store.default.svc.clusterset.local";
    let (said, _, status) = isthmus(&["explain", "-f", folder, "--cluster", "west", "-o", "json", &format!("GET {store}/cart?x=1")]);
    let explained: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((status, &explained["outcome"]["kind"]), (0, &Value::from("forwarded")));
    let clusters = explained["backends"][0]["destination"]["endpoints"].as_object().expect("endpoints");
    assert_eq!(clusters.keys().collect::<Vec<_>>(), ["east", "west"]);
    let (said, _, status) = isthmus(&["explain", "-f", folder, "--cluster", "west", &format!("GET {store}/")]);
    assert!(status == 1 && said.ends_with("outcome   404 no_route: no rule of the routes on this frontend matches\n"), "{said}");
    let (_, error, status) = isthmus(&["explain", "-f", folder, &format!("GET {store}/")]);
    assert!(status == 1 && error.contains("--cluster east or west"), "{error}");
}

#[test]
fn what_cannot_be_read_is_said_with_its_place() {
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a, namespace: shop}\n";
    let bad = format!("{route}spec: {{parentRefs: [{{name: 7}}]}}\n---\n{route}spec: {{}}\n");
    let json = r#"{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": 7}}"#;
    let others = [("notes.txt", "kind: ["), (".git/a.yaml", "kind: ["), (".b.yaml", "kind: [")];
    let folder =
        folder(&[&[("a/bad.yaml", bad.as_str()), ("b.yaml", "kind: [\n"), ("c.yml", route), ("d.json", json)][..], &others].concat());
    let (said, _, status) = isthmus(&["lint", "-o", "json", folder.path().to_str().expect("a path")]);
    let lines: Vec<Value> = serde_json::from_str(&said).expect("JSON");
    let short = |line: &Value| {
        let file =
            Path::new(line["file"].as_str().expect("a file")).strip_prefix(folder.path()).expect("in the folder").display().to_string();
        (
            file,
            line["document"].as_u64(),
            line["code"].as_str().expect("a code").to_owned(),
            line["field"].as_str().expect("a field").to_owned(),
        )
    };
    let expected = [
        ("a/bad.yaml", Some(1), "spec.parentRefs[0].name"),
        ("b.yaml", None, ""),
        ("c.yml", Some(1), "metadata.name"),
        ("d.json", Some(1), "metadata.name"),
    ];
    let expected = expected.map(|(file, document, field)| (file.to_owned(), document, "Unreadable".to_owned(), field.to_owned()));
    assert_eq!((lines.iter().map(short).collect::<Vec<_>>(), status), (expected.to_vec(), 1), "{said}");
}

#[test]
fn a_folder_of_clusters_has_them_directly_in_it() {
    let export = "{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceExport, metadata: {name: store}}";
    let service = "{apiVersion: v1, kind: Service, metadata: {name: store}, spec: {ports: [{port: 80}]}}";
    let lint = |folder: &tempfile::TempDir| isthmus(&["lint", folder.path().to_str().expect("a path")]).0;
    // What lies beside them belongs to none.
    let said =
        lint(&folder(&[("east/export.yaml", export), ("east/more/store.yaml", service), ("route.yaml", service), ("expected.yaml", "[]")]));
    assert!(said.contains("route.yaml: document 1: error Unreadable: it lies beside the folders of clusters"), "{said}");
    assert!(said.ends_with("1 errors, 0 warnings\n"), "{said}");
    // Clusters may have folders in their own.
    let client = ["explain", "-f", "--cluster", "east", "GET store.default.svc.clusterset.local/"];
    let deep = folder(&[("east/app/export.yaml", export), ("east/app/store.yaml", service), ("west/readme.yaml", "[]")]);
    let (said, _, _) = isthmus(&[&client[..2], &[deep.path().to_str().expect("a path")], &client[2..]].concat());
    assert!(said.starts_with("dialled   ServiceImport/default/store/80 at "), "{said}");
    // But where something lies beside them, these are files of one cluster.
    let said = lint(&folder(&[("clusters/east/export.yaml", export), ("store.yaml", service)]));
    assert_eq!(said, "0 errors, 0 warnings\n");
}

#[test]
fn a_reader_who_goes_is_no_failure() {
    use std::os::unix::process::CommandExt as _;

    let folder =
        folder(&[("ca.pem", "PEM"), ("pod.yaml", "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: web}]}}")]);
    let inject = ["inject", "-f", "pod.yaml", "--controller-ca", "ca.pem", "--controller", "https://controller:15010"];
    for (program, arguments) in [("isthmus", &["completion", "bash"][..]), ("isthmus", &inject), ("kubectl_complete-isthmus", &["ex"])] {
        // Closed before anything is written.
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_isthmus"));
        command.arg0(program).args(arguments).current_dir(folder.path()).stdout(writer);
        let output = command.output().expect("it runs");
        assert!(output.status.success() && output.stderr.is_empty(), "{program} {arguments:?}: {output:?}");
    }
}
