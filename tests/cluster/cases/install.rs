//! Installation by the documented command, and the workloads that everything else uses.

use anyhow::ensure;

use crate::bed::{Bed, EAST, WEST, eventually};

/// Installs the mesh with the documented command and deploys the first steps.
pub(crate) fn install(bed: &Bed) -> anyhow::Result<()> {
    for cluster in [EAST, WEST] {
        mesh(bed, cluster)?;
        bed.kubectl(cluster, &["apply", "-f", &bed.file("manifests/first-steps/app.yaml")])?;
    }
    bed.kubectl(EAST, &["apply", "-f", &bed.file("manifests/first-steps/client.yaml")])?;
    for cluster in [EAST, WEST] {
        every_pod_has_its_sidecar(bed, cluster)?;
    }
    let mesh = eventually("XMesh is accepted", || {
        let mesh = bed.get(EAST, &["xmesh", "isthmus"])?;
        ensure!(mesh["status"]["conditions"][0]["status"] == "True", "{mesh}");
        Ok(mesh)
    })?;
    let features = mesh["status"]["supportedFeatures"].as_array().map_or(0, Vec::len);
    ensure!(features == 17, "{features} features");
    Ok(())
}

/// The mesh, as `docs/install.md` has it. West leaves Services to others.
pub(crate) fn mesh(bed: &Bed, cluster: &str) -> anyhow::Result<()> {
    let parents = if cluster == WEST { "service-import" } else { "all" };
    let (name, parents) = (format!("cluster={cluster}"), format!("controller.parents={parents}"));
    let chart = bed.file("manifests/helm/isthmus");
    let place = ["--namespace", "isthmus-system", "--create-namespace"];
    let settings = ["--set", &name, "--set", &parents, "--set", "mesh.create=true"];
    let command = [&["upgrade", "--install", "isthmus", &chart][..], &place, &settings, &["--wait", "--timeout", "90s"]].concat();
    bed.helm(cluster, &command)?;
    // A pod that is made before the API server reaches the webhook goes without a sidecar; the documented next step tries one.
    eventually("isthmus check finds everything in order", || {
        let (fine, said) = bed.check(cluster)?;
        ensure!(fine, "{said}");
        Ok(())
    })
}

/// The first steps as they were.
pub(crate) fn first_steps(bed: &Bed) -> anyhow::Result<()> {
    for cluster in [EAST, WEST] {
        bed.kubectl(cluster, &["apply", "-f", &bed.file("manifests/first-steps/app.yaml")])?;
        for (deployment, replicas) in [("store", 1), ("cart", 2)] {
            bed.kubectl(cluster, &["-n", "shop", "scale", "deployment", deployment, &format!("--replicas={replicas}")])?;
            bed.kubectl(cluster, &["-n", "shop", "rollout", "status", &format!("deployment/{deployment}"), "--timeout=60s"])?;
        }
    }
    bed.kubectl(EAST, &["-n", "shop", "delete", "httproute", "store", "--ignore-not-found"])?;
    bed.kubectl(EAST, &["apply", "-f", &bed.file("manifests/first-steps/route.yaml")])?;
    Ok(())
}

/// The mesh and the first steps, without what a case that failed may have left in their way.
pub(crate) fn afresh(bed: &Bed) -> anyhow::Result<()> {
    for cluster in [EAST, WEST] {
        bed.kubectl(cluster, &["-n", "shop", "delete", "httproutes", "--all"])?;
        // What `isthmus check` would go on complaining of.
        for (namespace, object) in
            [("shop", "deployment/crowd"), ("shop", "pod/load"), ("kube-system", "configmap/cilium-config"), ("", "namespace/hardened")]
        {
            bed.kubectl(cluster, &["-n", namespace, "delete", object, "--ignore-not-found"])?;
        }
        mesh(bed, cluster)?;
    }
    first_steps(bed)
}

/// Waits until the pods of the first steps are ready, and looks whether they were injected.
pub(crate) fn every_pod_has_its_sidecar(bed: &Bed, cluster: &str) -> anyhow::Result<()> {
    for deployment in ["deployment/store", "deployment/cart"] {
        bed.kubectl(cluster, &["-n", "shop", "rollout", "status", deployment, "--timeout=60s"])?;
    }
    if cluster == EAST {
        bed.kubectl(cluster, &["-n", "shop", "wait", "--for=condition=Ready", "pod/client", "--timeout=60s"])?;
    }
    let pods = bed.get(cluster, &["-n", "shop", "pods"])?;
    for pod in pods["items"].as_array().into_iter().flatten().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()) {
        let sidecars = pod["spec"]["initContainers"].as_array().map_or(0, Vec::len);
        ensure!(sidecars == 2, "{}: {sidecars} init containers", pod["metadata"]["name"]);
    }
    Ok(())
}
