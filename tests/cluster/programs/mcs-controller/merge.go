// What one multi-cluster service is, given all of its exports. Functions of their arguments alone (KEP-1645, "Conflict
// Resolution Policy"): every cluster's controller comes to the same result from the same exports.
package main

import (
	"cmp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	mcs "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
)

// export is what one cluster adds to a multi-cluster service; its Service is a valid one.
type export struct {
	cluster string
	export  *mcs.ServiceExport
	service *corev1.Service
}

// merged is a multi-cluster service as all clusters see it; addresses are each cluster's own matter.
type merged struct {
	labels, annotations map[string]string
	spec                mcs.ServiceImportSpec
	clusters            []string
	conflicts           []string
}

// properties of an export in which all should agree, each with the reason of a Conflict when they do not.
var properties = []struct {
	reason mcs.ServiceExportConditionReason
	of     func(export) any
}{
	{mcs.ServiceExportReasonPortConflict, func(e export) any {
		return slices.SortedFunc(slices.Values(portsOf(e.service)), func(a, b mcs.ServicePort) int { return cmp.Compare(a.Name, b.Name) })
	}},
	{mcs.ServiceExportReasonTypeConflict, func(e export) any { return typeOf(e.service) }},
	{mcs.ServiceExportReasonSessionAffinityConflict, func(e export) any { return e.service.Spec.SessionAffinity }},
	{mcs.ServiceExportReasonSessionAffinityConfigConflict, func(e export) any { return e.service.Spec.SessionAffinityConfig }},
	{mcs.ServiceExportReasonLabelsConflict, func(e export) any { return e.export.Spec.ExportedLabels }},
	{mcs.ServiceExportReasonAnnotationsConflict, func(e export) any { return e.export.Spec.ExportedAnnotations }},
	{mcs.ServiceExportReasonInternalTrafficPolicyConflict, func(e export) any { return e.service.Spec.InternalTrafficPolicy }},
	{mcs.ServiceExportReasonTrafficDistributionConflict, func(e export) any { return e.service.Spec.TrafficDistribution }},
	{mcs.ServiceExportReasonIPFamilyConflict, func(e export) any { return slices.Sorted(slices.Values(e.service.Spec.IPFamilies)) }},
}

// merge takes at least one export. The oldest decides; the names of clusters decide between exports of one second.
func merge(exports []export) merged {
	exports = slices.SortedFunc(slices.Values(exports), func(a, b export) int {
		return cmp.Or(a.export.CreationTimestamp.Compare(b.export.CreationTimestamp.Time), cmp.Compare(a.cluster, b.cluster))
	})
	oldest := exports[0]
	result := merged{
		labels:      oldest.export.Spec.ExportedLabels,
		annotations: oldest.export.Spec.ExportedAnnotations,
		spec: mcs.ServiceImportSpec{
			Ports:                 mergePorts(exports),
			Type:                  typeOf(oldest.service),
			SessionAffinity:       oldest.service.Spec.SessionAffinity,
			SessionAffinityConfig: oldest.service.Spec.SessionAffinityConfig,
			IPFamilies:            oldest.service.Spec.IPFamilies,
			InternalTrafficPolicy: oldest.service.Spec.InternalTrafficPolicy,
			TrafficDistribution:   oldest.service.Spec.TrafficDistribution,
		},
	}
	for _, e := range exports {
		result.clusters = append(result.clusters, e.cluster)
	}
	slices.Sort(result.clusters)
	for _, property := range properties {
		if slices.ContainsFunc(exports, func(e export) bool { return !equality.Semantic.DeepEqual(property.of(e), property.of(oldest)) }) {
			result.conflicts = append(result.conflicts, string(property.reason))
		}
	}
	return result
}

// mergePorts is the union by name and by protocol and number. A port that an older export's port excludes is left out:
// no Service may have a name or a number twice, nor one port without a name beside others.
func mergePorts(exports []export) []mcs.ServicePort {
	union := []mcs.ServicePort{} // not nil: `ports` is required and may be empty
	for _, e := range exports {
		for _, port := range portsOf(e.service) {
			excluded := slices.ContainsFunc(union, func(older mcs.ServicePort) bool {
				return older.Name == port.Name || older.Protocol == port.Protocol && older.Port == port.Port ||
					older.Name == "" || port.Name == ""
			})
			if !excluded {
				union = append(union, port)
			}
		}
	}
	return union
}

func portsOf(service *corev1.Service) []mcs.ServicePort {
	ports := make([]mcs.ServicePort, 0, len(service.Spec.Ports))
	for _, port := range service.Spec.Ports {
		protocol := cmp.Or(port.Protocol, corev1.ProtocolTCP)
		ports = append(ports, mcs.ServicePort{Name: port.Name, Protocol: protocol, AppProtocol: port.AppProtocol, Port: port.Port})
	}
	return ports
}

func typeOf(service *corev1.Service) mcs.ServiceImportType {
	if service.Spec.ClusterIP == corev1.ClusterIPNone {
		return mcs.Headless
	}
	return mcs.ClusterSetIP
}

// validity is condition Valid of an export of this Service, which may be nil.
func validity(service *corev1.Service) metav1.Condition {
	status, reason, message := metav1.ConditionTrue, mcs.ServiceExportReasonValid, ""
	switch {
	case service == nil:
		status, reason, message = metav1.ConditionFalse, mcs.ServiceExportReasonNoService, "there is no Service of this name"
	case service.Spec.Type == corev1.ServiceTypeExternalName:
		status, reason, message = metav1.ConditionFalse, mcs.ServiceExportReasonInvalidServiceType, "of type ExternalName"
	}
	return mcs.NewServiceExportCondition(mcs.ServiceExportConditionValid, status, reason, message)
}

// readiness is condition Ready of an export.
func readiness(valid metav1.Condition) metav1.Condition {
	reason := mcs.ServiceExportReasonReady
	if valid.Status != metav1.ConditionTrue {
		reason = mcs.ServiceExportReasonPending
	}
	return mcs.NewServiceExportCondition(mcs.ServiceExportConditionReady, valid.Status, reason, valid.Message)
}

// agreement is condition Conflict of an export, of the conflicts between all. One that is not valid is none of them.
func agreement(valid metav1.Condition, conflicts []string) metav1.Condition {
	status, reason, message := metav1.ConditionFalse, mcs.ServiceExportReasonNoConflicts, ""
	if valid.Status == metav1.ConditionTrue && len(conflicts) > 0 {
		status, message = metav1.ConditionTrue, "exports differ: the oldest one holds"
		reason = mcs.ServiceExportConditionReason(strings.Join(conflicts, ","))
	}
	return mcs.NewServiceExportCondition(mcs.ServiceExportConditionConflict, status, reason, message)
}
