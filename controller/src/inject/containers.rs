//! The containers and volumes that injection adds.

use serde_json::{Value, json};

use super::{INIT_UID, Mode, Notes, Refused, SIDECAR_UID, Settings};
use crate::kubernetes::identity::AUDIENCE;

/// The container that arranges interception.
pub(super) const INIT: &str = "isthmus-init";
/// The container that obeys routes.
pub(super) const SIDECAR: &str = "isthmus-sidecar";
/// The volume with the socket between the two.
pub(super) const VOLUME: &str = "isthmus";
/// The volume with the token for the controller.
pub(super) const TOKEN_VOLUME: &str = "isthmus-token";

/// Where the image has it.
const SIDECAR_PROGRAM: &str = "/isthmus-sidecar";
const SOCKET_FOLDER: &str = "/run/isthmus";
const TOKEN_FOLDER: &str = "/var/run/secrets/isthmus.dev";
/// Where kubelet and Prometheus reach the sidecar.
const HEALTH_PORT: u16 = 15020;
/// The API's minimum is ten minutes; the kubelet renews a token when a fifth of its time is left.
const TOKEN_LIFETIME_S: u32 = 3600;
/// The start-up probe's answer waits for the first state up to `--startup-wait-s`; this is a little more than its default.
const STARTUP_TIMEOUT_S: u32 = 12;

/// Resources: name of the annotation, place, default.
type Resources = [(&'static str, &'static str, &'static str, Option<&'static str>); 4];
const SIDECAR_RESOURCES: Resources = [
    ("isthmus.dev/cpu-request", "requests", "cpu", Some("10m")),
    ("isthmus.dev/memory-request", "requests", "memory", Some("24Mi")),
    ("isthmus.dev/cpu-limit", "limits", "cpu", None),
    ("isthmus.dev/memory-limit", "limits", "memory", Some("256Mi")),
];
const INIT_RESOURCES: Resources = [
    ("isthmus.dev/init-cpu-request", "requests", "cpu", Some("1m")),
    ("isthmus.dev/init-memory-request", "requests", "memory", Some("4Mi")),
    ("isthmus.dev/init-cpu-limit", "limits", "cpu", None),
    ("isthmus.dev/init-memory-limit", "limits", "memory", Some("32Mi")),
];

fn resources(wanted: Resources, notes: &Notes<'_>) -> Value {
    let mut resources = json!({});
    for (annotation, kind, resource, default) in wanted {
        if let Some(amount) = notes.text(annotation).or(default) {
            resources[kind][resource] = json!(amount);
        }
    }
    resources
}

fn security(uid: i64, capabilities: &[&str]) -> Value {
    let add = if capabilities.is_empty() { json!({"drop": ["ALL"]}) } else { json!({"drop": ["ALL"], "add": capabilities}) };
    json!({
        "runAsUser": uid, "runAsGroup": uid, "runAsNonRoot": true, "readOnlyRootFilesystem": true, "privileged": false,
        // A process that is not root has an added capability only through its file's, which no-new-privileges would take away.
        "allowPrivilegeEscalation": !capabilities.is_empty(),
        "capabilities": add,
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// `isthmus-init`: `watch` as a native sidecar, or a one-shot `install`.
pub(super) fn init(mode: Mode, notes: &Notes<'_>, settings: &Settings) -> Result<Value, Refused> {
    let existing = notes.one_of("isthmus.dev/existing", &["keep", "reset"], "keep, reset")?.unwrap_or("keep");
    let fail = notes.one_of("isthmus.dev/fail", &["closed", "open"], "closed, open")?.unwrap_or("closed");
    let segments = notes.one_of("isthmus.dev/large-segments", &["none", "received", "all"], "none, received, all")?.unwrap_or("none");
    let mut arguments = match mode {
        Mode::Exact => vec![
            "watch".to_owned(),
            format!("--socket={SOCKET_FOLDER}/vips.sock"),
            format!("--fail={fail}"),
            format!("--large-segments={segments}"),
        ],
        Mode::Ranges => {
            std::iter::once("install".to_owned()).chain(settings.ranges.iter().map(|range| format!("--cidr={range}"))).collect()
        }
    };
    arguments.extend([format!("--sidecar-uid={SIDECAR_UID}"), format!("--existing={existing}")]);
    let mut container = json!({
        "name": INIT, "image": settings.init_image, "args": arguments,
        "securityContext": security(INIT_UID, &["NET_ADMIN"]),
        "resources": resources(INIT_RESOURCES, notes),
    });
    if mode == Mode::Exact {
        container["restartPolicy"] = json!("Always");
        container["volumeMounts"] = json!([{"name": VOLUME, "mountPath": SOCKET_FOLDER}]);
    }
    Ok(container)
}

/// `isthmus-sidecar`.
pub(super) fn sidecar(mode: Mode, notes: &Notes<'_>, settings: &Settings) -> Result<Value, Refused> {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let value = |name: &str, value: &str| json!({"name": name, "value": value});
    let mut env = vec![
        value("ISTHMUS_CONTROLLER", &settings.controller),
        value("ISTHMUS_CONTROLLER_CA", &settings.ca),
        value("ISTHMUS_TOKEN_FILE", &format!("{TOKEN_FOLDER}/token")),
        value("ISTHMUS_CLUSTER", &settings.cluster),
        field("ISTHMUS_NAMESPACE", "metadata.namespace"),
        field("ISTHMUS_POD", "metadata.name"),
        field("ISTHMUS_NODE", "spec.nodeName"),
        value("ISTHMUS_HEALTH", &format!("[::]:{HEALTH_PORT}")),
    ];
    if mode == Mode::Exact {
        env.push(value("ISTHMUS_VIP_SOCKET", &format!("{SOCKET_FOLDER}/vips.sock")));
    }
    if notes.flag("isthmus.dev/access-log")? == Some(true) {
        env.push(value("ISTHMUS_ACCESS_LOG", "-"));
    }
    if let Some(traces) = settings.traces.as_ref()
        && notes.flag("isthmus.dev/traces")? != Some(false)
    {
        env.push(value("ISTHMUS_OTLP_ENDPOINT", &traces.endpoint));
        env.push(value("ISTHMUS_TRACE_SAMPLING", &traces.sampling.to_string()));
    }
    let mut mounts = vec![json!({"name": TOKEN_VOLUME, "mountPath": TOKEN_FOLDER, "readOnly": true})];
    if mode == Mode::Exact {
        mounts.push(json!({"name": VOLUME, "mountPath": SOCKET_FOLDER}));
    }
    let mut container = json!({
        "name": SIDECAR, "image": settings.sidecar_image, "env": env,
        "ports": [{"name": "isthmus-metrics", "containerPort": HEALTH_PORT, "protocol": "TCP"}],
        "securityContext": security(SIDECAR_UID, &[]),
        "resources": resources(SIDECAR_RESOURCES, notes),
        "volumeMounts": mounts,
        "startupProbe": {
            "httpGet": {"path": "/startupz", "port": HEALTH_PORT},
            "periodSeconds": 1, "timeoutSeconds": STARTUP_TIMEOUT_S, "failureThreshold": 30,
        },
    });
    if settings.native {
        container["restartPolicy"] = json!("Always");
    } else {
        // The kubelet starts containers in order, each after the hook of the one before: the application after the sidecar serves.
        container["lifecycle"] = json!({"postStart": {"exec": {"command": [SIDECAR_PROGRAM, "--await-startup"]}}});
    }
    Ok(container)
}

/// What the containers mount.
pub(super) fn volumes() -> [Value; 2] {
    let token = json!({"serviceAccountToken": {"audience": AUDIENCE, "expirationSeconds": TOKEN_LIFETIME_S, "path": "token"}});
    [
        json!({"name": VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
        json!({"name": TOKEN_VOLUME, "projected": {"sources": [token]}}),
    ]
}
