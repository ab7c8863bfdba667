package clusterset

import (
	"context"
	"fmt"
	"slices"
	"strings"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/controller-runtime/pkg/client"
	mcs "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
)

// Export is what the MCS provider must have imported into the first cluster before the first test.
type Export struct {
	types.NamespacedName
	// The clusters that ready endpoints must be from, by ordinal. None: the Service selects no pod.
	From     []string
	Headless bool
}

// Import reads a ServiceImport, in whichever version the cluster serves it.
func (cluster *Cluster) Import(ctx context.Context, name types.NamespacedName) (*mcs.ServiceImport, error) {
	object := cluster.emptyImport()
	if err := cluster.Client.Get(ctx, name, object); err != nil {
		return nil, err
	}
	read := &mcs.ServiceImport{}
	return read, runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, read)
}

func (cluster *Cluster) emptyImport() *unstructured.Unstructured {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(cluster.kind(mcs.ServiceImportKindName))
	return object
}

func (cluster *Cluster) kind(kind string) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: mcs.GroupName, Version: cluster.mcsVersion, Kind: kind}
}

// missing says what is not yet imported of the exports; empty if nothing.
func (set *ClusterSet) missing(ctx context.Context, exports []Export) ([]string, error) {
	var missing []string
	for _, export := range exports {
		why, err := set.whyIncomplete(ctx, export)
		if err != nil {
			return nil, err
		}
		if why != "" {
			missing = append(missing, fmt.Sprintf("ServiceImport %s in cluster %s: %s", export.NamespacedName, set.First.ID, why))
		}
	}
	return missing, nil
}

func (set *ClusterSet) whyIncomplete(ctx context.Context, export Export) (string, error) {
	found, err := set.First.Import(ctx, export.NamespacedName)
	switch {
	case client.IgnoreNotFound(err) != nil:
		return "", err
	case err != nil:
		return "does not exist", nil
	case export.Headless && found.Spec.Type != mcs.Headless:
		return fmt.Sprintf("type is %s, not Headless", found.Spec.Type), nil
	case export.Headless:
		return "", nil
	case found.Spec.Type != mcs.ClusterSetIP:
		return fmt.Sprintf("type is %s, not ClusterSetIP", found.Spec.Type), nil
	case len(found.Spec.IPs) == 0:
		return "has no ClusterSetIP", nil
	}
	sources, err := set.First.sources(ctx, found)
	if err != nil {
		return "", err
	}
	var lacking []string
	for _, cluster := range set.clusters() {
		if slices.Contains(export.From, cluster.Ordinal) && !sources.Has(cluster.ID) {
			lacking = append(lacking, cluster.ID)
		}
	}
	if len(lacking) > 0 {
		return fmt.Sprintf("no ready endpoints of cluster %s, only of %v", strings.Join(lacking, " and "), sets.List(sources)), nil
	}
	return "", nil
}

// sources are the ids of the clusters with ready endpoints behind an import. KEP-1645 leaves EndpointSlices to the provider: if
// the import's status says that there are none, it is believed about its clusters.
func (cluster *Cluster) sources(ctx context.Context, of *mcs.ServiceImport) (sets.Set[string], error) {
	found := sets.New[string]()
	if of.Status.EndpointSliceObjects == mcs.EndpointSliceObjectsAbsent {
		for _, source := range of.Status.Clusters {
			found.Insert(source.Cluster)
		}
		return found, nil
	}
	var endpointSlices discoveryv1.EndpointSliceList
	labelled := client.MatchingLabels{mcs.LabelServiceName: of.Name}
	if err := cluster.Client.List(ctx, &endpointSlices, client.InNamespace(of.Namespace), labelled); err != nil {
		return nil, err
	}
	for _, endpointSlice := range endpointSlices.Items {
		if slices.ContainsFunc(endpointSlice.Endpoints, ready) {
			found.Insert(endpointSlice.Labels[mcs.LabelSourceCluster])
		}
	}
	return found, nil
}

// An endpoint that does not say whether it is ready is (discovery.k8s.io/v1, EndpointConditions).
func ready(endpoint discoveryv1.Endpoint) bool {
	return endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready
}

// NoImport is an error while a ServiceImport exists.
func (cluster *Cluster) NoImport(ctx context.Context, name types.NamespacedName) error {
	_, err := cluster.Import(ctx, name)
	if err == nil {
		return fmt.Errorf("ServiceImport %s is still there", name)
	}
	return client.IgnoreNotFound(err)
}

// Unexport deletes a ServiceExport.
func (cluster *Cluster) Unexport(ctx context.Context, name types.NamespacedName) error {
	export := &unstructured.Unstructured{}
	export.SetGroupVersionKind(cluster.kind(mcs.ServiceExportKindName))
	export.SetNamespace(name.Namespace)
	export.SetName(name.Name)
	return cluster.Client.Delete(ctx, export)
}
