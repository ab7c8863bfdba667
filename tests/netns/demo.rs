//! `isthmus demo`: every example shows what it says, with root and without, and nothing is left behind.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::pages::{self, IN_NAMESPACES, blocks, commands};

/// Any user that is not root.
const SOMEBODY: u32 = 65_533;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/examples")
}

/// The programs, where every user can reach them.
pub(crate) fn programs(folder: &Path) -> PathBuf {
    let own = std::env::current_exe().expect("own path");
    let built = own.ancestors().nth(2).expect("a folder");
    for name in ["isthmus", "isthmus-init", "isthmus-sidecar", "isthmus-controller"] {
        // A link where the file system allows one: the programs are large.
        if std::fs::hard_link(built.join(name), folder.join(name)).is_err() {
            std::fs::copy(built.join(name), folder.join(name)).expect("copied");
        }
    }
    folder.join("isthmus")
}

pub(crate) fn open_folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("open");
    folder
}

pub(crate) fn shown(output: &Output) -> String {
    format!("{}\n{}{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn every_example_shows_what_it_says() {
    let folder = open_folder();
    let program = programs(folder.path());
    for example in ["gamma", "simple", "location", "method", "hybrid", "referencegrant"] {
        for intercept in ["exact", "cidr"] {
            let output = Command::new(&program)
                .arg("demo")
                .arg(examples().join(example))
                .arg(format!("--intercept={intercept}"))
                .output()
                .expect("the program runs");
            let text = shown(&output);
            assert!(
                output.status.success() && text.contains("ROUTE OR REASON") && text.contains("default/") || example == "referencegrant",
                "{text}"
            );
            assert!(output.status.success(), "{example}, {intercept}: {text}");
        }
    }
}

#[test]
fn the_gamma_example_is_the_gep_s() {
    let text = std::fs::read_to_string(examples().join("gamma/west/route.yaml")).expect("the example");
    let documents = routing::manifest::parse(&text).expect("YAML");
    let expected = serde_json::json!({
        "kind": "HTTPRoute", "apiVersion": "gateway.networking.k8s.io/v1", "metadata": {"name": "store"},
        "spec": {
            "parentRefs": [{"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "store"}],
            "rules": [{
                "matches": [{"path": {"value": "/cart"}}],
                "backendRefs": [{"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "cart"}],
            }],
        },
    });
    assert_eq!(documents.into_iter().map(|document| document.value).collect::<Vec<_>>(), [expected]);
}

#[test]
fn without_root_a_user_namespace_is_used() {
    let folder = open_folder();
    let program = programs(folder.path());
    // The manifests, where that user can read them.
    let manifests = folder.path().join("gamma");
    copy_example("gamma", &manifests);
    let ask = |request: &str| {
        let mut command = Command::new(&program);
        command.arg("demo").arg(&manifests).args(["--request", request]).env("HOME", "/").uid(SOMEBODY).gid(SOMEBODY);
        shown(&command.output().expect("the program runs"))
    };
    let text = ask("GET /cart");
    assert!(text.contains("in a user namespace, without root"), "{text}");
    assert!(text.contains("200") && text.contains("/default/cart-") && text.contains("default/store rule 0"), "{text}");
    assert!(ask("GET /").contains("no_route"));
}

#[test]
fn where_nothing_can_be_had_it_is_said_what_to_do() {
    let folder = open_folder();
    let program = programs(folder.path());
    // A user namespace of its own, in which no further one may be made and no capability is left: what a locked-down machine is like.
    let script = format!(
        "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all {} demo {}",
        program.display(),
        examples().join("gamma").display()
    );
    let output = Command::new("unshare").args(["-Ur", "sh", "-c", &script]).output().expect("unshare runs");
    let text = shown(&output);
    assert!(!output.status.success() && text.contains("user.max_user_namespaces") && text.contains("root"), "{text}");
}

/// A demo that has started everything and stays.
fn kept(program: &Path, temporary: &Path) -> Child {
    let mut command = Command::new(program);
    command.arg("demo").arg(examples().join("gamma")).arg("--keep").env("TMPDIR", temporary);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program runs");
    let mut said = std::io::BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("Stays until") {
        line.clear();
        let length = std::io::BufRead::read_line(&mut said, &mut line).expect("text");
        assert!(length > 0, "it ended early");
    }
    // Open until its end: it may say more.
    child.stderr = Some(said.into_inner());
    child
}

#[test]
fn a_killed_demo_leaves_no_process_behind() {
    let folder = open_folder();
    let mut child = kept(&programs(folder.path()), folder.path());
    let children = children(child.id());
    assert!(children.len() >= 5, "init, sidecar, two controllers and the one that holds them: {children:?}");
    child.kill().expect("killed");
    child.wait().expect("its end");
    let end = std::time::Instant::now() + super::bytes::PATIENCE;
    while children.iter().any(|pid| is_running(pid)) {
        assert!(std::time::Instant::now() < end, "{children:?}");
    }
}

/// Whether a process runs; one that nobody has waited for yet does not.
fn is_running(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z') && !line.contains('X'))
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    let folder = open_folder();
    let program = programs(folder.path());
    let temporary = folder.path().join("tmp");
    std::fs::create_dir(&temporary).expect("a folder");
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut child = kept(&program, &temporary);
        let children = children(child.id());
        assert!(children.len() >= 4, "init, sidecar and two controllers: {children:?}");
        kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), signal).expect("told");
        assert!(child.wait().expect("its end").success());
        assert!(children.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()), "{children:?}");
        assert_eq!(std::fs::read_dir(&temporary).expect("the folder").count(), 0, "no file is left");
    }
}

#[test]
fn in_the_shell_of_a_demo_edits_take_effect() {
    use std::os::unix::fs::PermissionsExt;
    let folder = open_folder();
    let program = programs(folder.path());
    let manifests = folder.path().join("gamma");
    copy_example("gamma", &manifests);
    // The route's new rule is asked for until it is in force; the test's own time limit is the demo's.
    let script = format!(
        "#!/bin/sh\nisthmus request GET http://store.default.svc.clusterset.local/other\nsed -i s,/cart,/other, {}\nuntil isthmus request GET \
         http://store/other 2>&1 | grep x-served-by; do :; done\necho done\n",
        manifests.join("west/route.yaml").display()
    )
    .replace("http://store/", "http://store.default.svc.clusterset.local/");
    let shell = folder.path().join("shell");
    std::fs::write(&shell, script).expect("written");
    std::fs::set_permissions(&shell, std::fs::Permissions::from_mode(0o755)).expect("executable");
    let output = Command::new(&program).arg("demo").arg(&manifests).arg("--shell").env("SHELL", &shell).output().expect("the program runs");
    let text = shown(&output);
    assert!(output.status.success() && text.contains("404 Not Found") && text.contains("x-isthmus-reason: no_route"), "{text}");
    assert!(text.contains("in force after") && text.contains("/default/cart-") && text.contains("done"), "{text}");
}

/// Each command in its order, in a folder like a clone: a newcomer who follows the page reaches the main job, breaks it in three ways, and is told
/// the cause of each by one command.
#[test]
fn the_commands_of_the_quick_start_show_what_it_says() {
    use std::os::unix::fs::PermissionsExt;
    let folder = open_folder();
    let clone = folder.path();
    let built = clone.join("target/debug");
    std::fs::create_dir_all(&built).expect("a folder");
    programs(&built);
    std::os::unix::fs::symlink(examples().parent().expect("the manifests"), clone.join("manifests")).expect("a link");
    let page = std::fs::read_to_string(examples().join("../..").join(IN_NAMESPACES)).expect("the page");
    let commands = blocks(IN_NAMESPACES).iter().filter(|block| block.language == "sh").flat_map(commands).collect::<Vec<_>>();
    // What is typed into the shell of the demo.
    let (typed, commands): (Vec<_>, Vec<_>) = commands.iter().partition(|command| command.typed.starts_with("isthmus "));
    let typed: Vec<&str> = typed.iter().map(|command| command.typed.as_str()).collect();
    let shell = clone.join("shell");
    std::fs::write(&shell, format!("#!/bin/sh\n{}\n", typed.join("\n"))).expect("written");
    std::fs::set_permissions(&shell, std::fs::Permissions::from_mode(0o755)).expect("executable");

    let (mut explained, mut asked) = (Vec::new(), Vec::new());
    // `make demo` builds first; it is run where the project is built.
    for pages::Command { typed: command, remark, .. } in commands.into_iter().filter(|command| command.typed != "make demo") {
        let output = Command::new("sh").args(["-c", command]).current_dir(clone).env("SHELL", &shell).output().expect("a shell");
        let text = shown(&output);
        if command.contains(" explain ") {
            explained.push((output.status.code(), String::from_utf8_lossy(&output.stdout).trim_end().to_owned()));
        } else if command.contains("demo mine") {
            let (status, reason) = remark.split_once(' ').expect("a status and a reason");
            assert!(text.contains(status) && text.contains(reason), "{command}: {text}");
            asked.push(reason);
        } else if command.contains(" lint ") {
            assert!(output.status.success() && text.contains("warning NoEndpoint"), "{command}: {text}");
        } else {
            assert!(output.status.success(), "{command}: {text}");
        }
        if command.contains("--shell") {
            assert!(text.matches("x-served-by").count() == typed.len() && typed.len() == 2, "{text}");
        }
    }
    assert_eq!(asked, ["invalid_backend", "invalid_backend", "no_endpoint"]);
    let causes = [
        "ServiceImport/default/cart/80 answers",
        "has no TCP port 8081",
        "needs a ReferenceGrant in namespace elsewhere",
        "no ready endpoint",
    ];
    assert_eq!(explained.len(), causes.len(), "{explained:?}");
    for (number, ((code, text), cause)) in explained.iter().zip(causes).enumerate() {
        let last = text.lines().last().unwrap_or_default();
        assert!(last.starts_with("outcome") && last.contains(cause), "{text}");
        assert_eq!(*code, Some(i32::from(number > 0)), "{text}");
        // The page says it in the same words.
        let words = last.rsplit(": ").next().unwrap_or_default();
        assert!(number == 0 || page.contains(words), "{last}");
    }
    assert!(std::fs::read_to_string(clone.join("mine.svg")).expect("a picture").contains("no_endpoint"));
}

fn copy_example(name: &str, to: &Path) {
    for cluster in ["west", "east"] {
        std::fs::create_dir_all(to.join(cluster)).expect("a folder");
        for entry in std::fs::read_dir(examples().join(name).join(cluster)).expect("the example") {
            let path = entry.expect("an entry").path();
            std::fs::copy(&path, to.join(cluster).join(path.file_name().expect("a name"))).expect("copied");
        }
    }
}

/// The processes that a process has started.
fn children(pid: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}
