//! The control plane: controller, its rights, its CA, its webhook.

use std::collections::BTreeSet;

use controller::inject::POD_ANNOTATION;
use controller::kubernetes::MANAGER;
use controller::kubernetes::access::{Access, needed};
use controller::kubernetes::certificates::SECRET;
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use x509_parser::pem::parse_x509_pem;

use super::{Cluster, Findings};

/// The webhook's configuration.
const WEBHOOK: &str = "isthmus-injector";
/// Sidecars learn the CA when their pod is made: it has to be there for longer than they are.
const CA_LEFT_MIN_S: i64 = 90 * 24 * 3600;
/// A leader renews its lease more often.
const LEASE_AGE_MAX_S: i64 = 30;

/// The controller runs, in our version, and one of its replicas leads.
pub(super) async fn controller(cluster: &Cluster, findings: &mut Findings) {
    const CHECK: &str = "controller";
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let deployment = match deployments.get_opt(MANAGER).await {
        Ok(Some(deployment)) => deployment,
        Ok(None) => {
            let namespace = &cluster.namespace;
            return findings.fail(
                CHECK,
                format!("no Deployment {namespace}/{MANAGER}"),
                "install it with the Helm chart or the kustomize base",
            );
        }
        Err(error) => return findings.unknown(CHECK, &error),
    };
    let status = deployment.status.unwrap_or_default();
    let (ready, wanted) = (status.ready_replicas.unwrap_or(0), deployment.spec.replicas.unwrap_or(1));
    let namespace = &cluster.namespace;
    match ready {
        0 => findings.fail(CHECK, "no replica is ready", format!("kubectl -n {namespace} describe deployment {MANAGER}")),
        ready if ready < wanted => {
            findings.warn(CHECK, format!("{ready} of {wanted} replicas are ready"), format!("kubectl -n {namespace} get pods"))
        }
        _ => findings.ok(CHECK, format!("{ready} of {wanted} replicas are ready")),
    }
    let version = deployment.metadata.labels.and_then(|mut labels| labels.remove("app.kubernetes.io/version")).unwrap_or_default();
    if version == env!("CARGO_PKG_VERSION") {
        findings.ok("version", format!("{version}, as this program"));
    } else {
        let own = env!("CARGO_PKG_VERSION");
        findings.warn(
            "version",
            format!("the controller is {version:?}, this program {own}"),
            "use the program of the controller's version",
        );
    }
    leader(cluster, findings).await;
}

async fn leader(cluster: &Cluster, findings: &mut Findings) {
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let spec = match leases.get_opt(MANAGER).await {
        Ok(lease) => lease.and_then(|lease| lease.spec).unwrap_or_default(),
        Err(error) => return findings.unknown("leader", &error),
    };
    let age = spec.renew_time.map(|time| Timestamp::now().as_second() - time.0.as_second());
    match (spec.holder_identity.filter(|holder| !holder.is_empty()), age) {
        (Some(holder), Some(age)) if age <= LEASE_AGE_MAX_S => findings.ok("leader", holder),
        (holder, _) => findings.warn(
            "leader",
            format!("nobody leads (last: {}): no status is written", holder.unwrap_or_else(|| "nobody".to_owned())),
            format!("kubectl -n {} logs deployment/{MANAGER}", cluster.namespace),
        ),
    }
}

/// The controller may do what it does.
pub(super) async fn access(cluster: &Cluster, findings: &mut Findings) {
    const CHECK: &str = "rights";
    let reviews: Api<SubjectAccessReview> = Api::all(cluster.client.clone());
    let needed = needed(WEBHOOK);
    let mut denied = BTreeSet::new();
    for access in &needed {
        match reviews.create(&PostParams::default(), &review(access, &cluster.namespace)).await {
            Ok(answer) if answer.status.as_ref().is_some_and(|status| status.allowed) => {}
            Ok(_) => drop(denied.insert(format!("{} {}", access.verb, access.resource))),
            Err(error) => return findings.unknown(CHECK, &error),
        }
    }
    if denied.is_empty() {
        findings.ok(CHECK, format!("the controller has all {} that it needs", needed.len()));
    } else {
        let denied: Vec<String> = denied.into_iter().collect();
        findings.fail(CHECK, format!("the controller may not {}", denied.join(", ")), "apply the ClusterRole and Role of its version");
    }
}

fn review(access: &Access, namespace: &str) -> SubjectAccessReview {
    let (resource, subresource) = access.resource.split_once('/').unwrap_or((&access.resource, ""));
    let attributes = ResourceAttributes {
        group: Some(access.group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource: Some(subresource.to_owned()),
        verb: Some(access.verb.to_owned()),
        name: access.name.map(str::to_owned),
        namespace: access.own_namespace.then(|| namespace.to_owned()),
        ..ResourceAttributes::default()
    };
    let spec = SubjectAccessReviewSpec {
        user: Some(format!("system:serviceaccount:{namespace}:{MANAGER}")),
        resource_attributes: Some(attributes),
        ..SubjectAccessReviewSpec::default()
    };
    SubjectAccessReview { spec, ..SubjectAccessReview::default() }
}

async fn ca(cluster: &Cluster) -> Result<Option<Vec<u8>>, kube::Error> {
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let secret = secrets.get_opt(SECRET).await?;
    Ok(secret.and_then(|secret| secret.data?.remove("tls.crt")).map(|bytes| bytes.0))
}

/// The CA is there and will be for a while.
pub(super) async fn certificates(cluster: &Cluster, findings: &mut Findings) {
    const CHECK: &str = "certificates";
    let pem = match ca(cluster).await {
        Ok(Some(pem)) => pem,
        Ok(None) => {
            let namespace = &cluster.namespace;
            return findings.fail(CHECK, format!("no CA in Secret {namespace}/{SECRET}"), "restart the controller: it makes one");
        }
        Err(error) => return findings.unknown(CHECK, &error),
    };
    let left = parse_x509_pem(&pem).ok().and_then(|(_, pem)| {
        let certificate = pem.parse_x509().ok()?;
        Some(certificate.validity().not_after.timestamp() - Timestamp::now().as_second())
    });
    match left {
        Some(left) if left >= CA_LEFT_MIN_S => findings.ok(CHECK, format!("the CA is good for {} days", left / 86_400)),
        Some(left) => findings.warn(CHECK, format!("the CA is good for {} days", left / 86_400), renew_ca(&cluster.namespace)),
        None => findings.fail(
            CHECK,
            format!("what is in Secret {}/{SECRET} is no certificate", cluster.namespace),
            renew_ca(&cluster.namespace),
        ),
    }
}

/// While a replica runs, it puts its CA back.
fn renew_ca(namespace: &str) -> String {
    format!(
        "kubectl -n {namespace} scale deployment {MANAGER} --replicas 0, wait until its pods are gone, delete secret {SECRET}, scale it up \
         again; then make every injected pod anew: until then their sidecars keep the routes they have"
    )
}

/// Pods are injected: the configuration has the CA, and a pod that is only tried gets its sidecar.
pub(super) async fn webhook(cluster: &Cluster, findings: &mut Findings) {
    const CHECK: &str = "webhook";
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(cluster.client.clone());
    let configuration = match configurations.get_opt(WEBHOOK).await {
        Ok(Some(configuration)) => configuration,
        Ok(None) => return findings.fail(CHECK, format!("no MutatingWebhookConfiguration {WEBHOOK}"), "apply the manifests again"),
        Err(error) => return findings.unknown(CHECK, &error),
    };
    if let Ok(Some(ca)) = ca(cluster).await {
        let webhooks = configuration.webhooks.unwrap_or_default();
        if webhooks.iter().any(|webhook| webhook.client_config.ca_bundle.as_ref().is_none_or(|bundle| bundle.0 != ca)) {
            findings.fail(
                CHECK,
                "its caBundle is not the controller's CA",
                "wait half a minute: the controller mends it; else see its log",
            );
        }
    }
    let pod: Pod = match serde_json::from_value(json!({
        "metadata": {"generateName": "isthmus-check-", "namespace": "default", "annotations": {POD_ANNOTATION: "true"}},
        "spec": {"containers": [{"name": "check", "image": "check"}]},
    })) {
        Ok(pod) => pod,
        Err(error) => return findings.unknown(CHECK, &error),
    };
    let tried = Api::<Pod>::namespaced(cluster.client.clone(), "default")
        .create(&PostParams { dry_run: true, ..PostParams::default() }, &pod)
        .await;
    match tried.map(|pod| pod.spec.and_then(|spec| spec.init_containers.or(Some(spec.containers))).unwrap_or_default()) {
        Ok(containers) if containers.iter().any(|container| container.name.starts_with("isthmus-")) => {
            findings.ok(CHECK, "a pod that was tried was given its sidecar");
        }
        Ok(_) => findings.fail(
            CHECK,
            "a pod that was tried was not given a sidecar",
            format!("kubectl -n {} get endpointslices: can the API server reach the controller's port 15012?", cluster.namespace),
        ),
        // Whatever else this cluster demands of pods in `default` is no word about the webhook.
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 422) && !status.message.contains("isthmus") => findings.warn(
            CHECK,
            format!("a pod cannot be tried in the namespace default: {}", status.message),
            format!("make a pod with the annotation {POD_ANNOTATION}: \"true\" where you may, and see whether it has its sidecar"),
        ),
        Err(error) => findings.fail(CHECK, format!("a pod that was tried was refused: {error}"), "see what refuses it"),
    }
}
