// The objects that one multi-cluster service has in an importing cluster, made from what was merged. No client in sight.
package main

import (
	"crypto/sha256"
	"encoding/base32"
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	mcs "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
)

const (
	// Marks what this controller may change and delete. ServiceImports that others wrote are left alone.
	controllerName        = "mcs-controller.isthmus.test"
	managedByLabel        = "app.kubernetes.io/managed-by"
	derivedAnnotation     = "multicluster.kubernetes.io/derived-service"
	nameMax, hashedLength = 253, 10
)

func hashed(text string) string {
	sum := sha256.Sum256([]byte(text))
	return strings.ToLower(base32.HexEncoding.EncodeToString(sum[:]))[:hashedLength]
}

// derivedName is the name of the Service whose ClusterIPs are the import's.
func derivedName(key types.NamespacedName) string { return "derived-" + hashed(key.String()) }

// setImport leaves addresses as they are, since they come from the derived Service; a headless import has none.
func setImport(object *mcs.ServiceImport, service merged) {
	object.Labels, object.Annotations = map[string]string{}, map[string]string{}
	maps.Copy(object.Labels, service.labels)
	maps.Copy(object.Annotations, service.annotations)
	object.Labels[managedByLabel] = controllerName
	ips, families := object.Spec.IPs, object.Spec.IPFamilies
	object.Spec = *service.spec.DeepCopy()
	if service.spec.Type == mcs.ClusterSetIP {
		object.Annotations[derivedAnnotation] = derivedName(types.NamespacedName{Namespace: object.Namespace, Name: object.Name})
		object.Spec.IPs, object.Spec.IPFamilies = ips, families
	}
}

// setImportStatus says Present, as every slice of every cluster is imported (KEP-1645, "EndpointSlice").
func setImportStatus(object *mcs.ServiceImport, service merged) {
	object.Status.EndpointSliceObjects = mcs.EndpointSliceObjectsPresent
	object.Status.Clusters = nil
	for _, name := range service.clusters {
		object.Status.Clusters = append(object.Status.Clusters, mcs.ClusterStatus{Cluster: name})
	}
	status, reason := metav1.ConditionTrue, mcs.ServiceImportReasonReady
	if object.Spec.Type == mcs.ClusterSetIP && len(object.Spec.IPs) == 0 {
		status, reason = metav1.ConditionFalse, mcs.ServiceImportReasonPending
	}
	ready := mcs.NewServiceImportCondition(mcs.ServiceImportConditionReady, status, reason, "")
	ready.ObservedGeneration = object.Generation
	meta.SetStatusCondition(&object.Status.Conditions, ready)
}

// setDerived makes a Service without a selector, whose endpoints are the imported slices.
func setDerived(object *corev1.Service, owner *mcs.ServiceImport) {
	object.Labels = map[string]string{managedByLabel: controllerName, mcs.LabelServiceName: owner.Name}
	object.OwnerReferences = []metav1.OwnerReference{{
		APIVersion: mcs.GroupVersion.String(), Kind: mcs.ServiceImportKindName, Name: owner.Name, UID: owner.UID, Controller: new(true),
	}}
	spec := &object.Spec
	spec.Type, spec.IPFamilyPolicy = corev1.ServiceTypeClusterIP, new(corev1.IPFamilyPolicyPreferDualStack)
	spec.SessionAffinity, spec.SessionAffinityConfig = owner.Spec.SessionAffinity, owner.Spec.SessionAffinityConfig
	spec.InternalTrafficPolicy, spec.TrafficDistribution = owner.Spec.InternalTrafficPolicy, owner.Spec.TrafficDistribution
	spec.Ports = nil
	for _, port := range owner.Spec.Ports {
		spec.Ports = append(spec.Ports, corev1.ServicePort{
			Name: port.Name, Protocol: port.Protocol, AppProtocol: port.AppProtocol, Port: port.Port,
			TargetPort: intstr.FromInt32(port.Port), // what the API server would set
		})
	}
}

// isSource tells whether a slice is one of the Service's own, not one imported from elsewhere.
func isSource(slice *discoveryv1.EndpointSlice) bool {
	_, imported := slice.Labels[mcs.LabelServiceName]
	return !imported
}

// importedSlice is a cluster's slice as another cluster has it: ports and addresses stay as they are. What would mean
// something else there is dropped: the target's name, and hints, which tell zones of the source cluster.
func importedSlice(
	key types.NamespacedName, kind mcs.ServiceImportType, source string, slice *discoveryv1.EndpointSlice,
) *discoveryv1.EndpointSlice {
	made := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: key.Namespace,
			Name:      sliceName(source, slice.Name),
			Labels: map[string]string{
				mcs.LabelServiceName:       key.Name,
				mcs.LabelSourceCluster:     source,
				discoveryv1.LabelManagedBy: controllerName,
			},
		},
		AddressType: slice.AddressType,
		Ports:       slice.Ports,
	}
	if kind == mcs.ClusterSetIP {
		// kube-proxy then programs the derived Service with it.
		made.Labels[discoveryv1.LabelServiceName] = derivedName(key)
	}
	for _, endpoint := range slice.Endpoints {
		made.Endpoints = append(made.Endpoints, discoveryv1.Endpoint{
			Addresses: endpoint.Addresses, Conditions: endpoint.Conditions,
			Hostname: endpoint.Hostname, NodeName: endpoint.NodeName, Zone: endpoint.Zone,
		})
	}
	return made
}

func sliceName(source, slice string) string {
	name := source + "-" + slice
	if len(name) > nameMax {
		name = name[:nameMax-hashedLength-1] + "-" + hashed(name)
	}
	return name
}
