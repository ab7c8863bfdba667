//! One source of truth for what is installed.

use std::fs;

use anyhow::ensure;

use crate::bed::{Bed, EAST};

/// The kustomize base is what the Helm chart renders, and kustomize takes it.
pub(crate) fn kustomize_is_the_chart(bed: &Bed) -> anyhow::Result<()> {
    let rendered = bed.helm(EAST, &["template", "isthmus", &bed.file("manifests/helm/isthmus"), "--namespace", "isthmus-system"])?;
    let committed = fs::read_to_string(bed.file("manifests/kustomize/isthmus.yaml"))?;
    ensure!(rendered == committed, "manifests/kustomize/isthmus.yaml is not what the chart renders: make manifests");
    let built = bed.kubectl(EAST, &["kustomize", &bed.file("manifests/kustomize")])?;
    let kinds = |text: &str| text.lines().filter(|line| line.starts_with("kind: ")).count();
    ensure!(kinds(&built) == kinds(&rendered) + 1, "kustomize builds the chart's objects and the Namespace");
    // What the API server refuses would not be found otherwise.
    bed.kubectl(EAST, &["apply", "--dry-run=server", "-k", &bed.file("manifests/kustomize")])?;
    Ok(())
}
