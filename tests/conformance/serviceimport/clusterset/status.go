package clusterset

import (
	"context"
	"fmt"
	"reflect"
	"testing"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
)

// Accepted is the condition of a parentRef whose route is in force.
func Accepted() metav1.Condition {
	return condition(gatewayv1.RouteConditionAccepted, metav1.ConditionTrue, gatewayv1.RouteReasonAccepted)
}

// NotAccepted is the condition of a parentRef whose route is not in force; without a reason, any will do.
func NotAccepted(reason gatewayv1.RouteConditionReason) metav1.Condition {
	return condition(gatewayv1.RouteConditionAccepted, metav1.ConditionFalse, reason)
}

// ResolvedRefs is the condition of a route whose references are all good.
func ResolvedRefs() metav1.Condition {
	return condition(gatewayv1.RouteConditionResolvedRefs, metav1.ConditionTrue, gatewayv1.RouteReasonResolvedRefs)
}

// UnresolvedRefs is the condition of a route with a backend that cannot be used.
func UnresolvedRefs(reason gatewayv1.RouteConditionReason) metav1.Condition {
	return condition(gatewayv1.RouteConditionResolvedRefs, metav1.ConditionFalse, reason)
}

func condition(kind gatewayv1.RouteConditionType, status metav1.ConditionStatus, reason gatewayv1.RouteConditionReason) metav1.Condition {
	return metav1.Condition{Type: string(kind), Status: status, Reason: string(reason)}
}

// HTTPRouteMustHave waits until status says this of each parentRef of the route that is a mesh's. Upstream's helpers know a parent by its name alone
// and want every condition to be of the latest generation, also those of others.
func HTTPRouteMustHave(t *testing.T, s *suite.ConformanceTestSuite, name types.NamespacedName, want ...metav1.Condition) {
	t.Helper()
	routeMustHave(t, s, name, &gatewayv1.HTTPRoute{}, want)
}

// GRPCRouteMustHave is HTTPRouteMustHave for GRPCRoutes.
func GRPCRouteMustHave(t *testing.T, s *suite.ConformanceTestSuite, name types.NamespacedName, want ...metav1.Condition) {
	t.Helper()
	routeMustHave(t, s, name, &gatewayv1.GRPCRoute{}, want)
}

func routeMustHave(t *testing.T, s *suite.ConformanceTestSuite, name types.NamespacedName, route client.Object, want []metav1.Condition) {
	t.Helper()
	Await(t, s.TimeoutConfig.RouteMustHaveParents, func(ctx context.Context) error {
		if err := s.Client.Get(ctx, name, route); err != nil {
			return err
		}
		references, status := parents(route)
		for _, reference := range references {
			if *reference.Kind != "Service" && *reference.Kind != "ServiceImport" {
				continue
			}
			if err := parentHas(route, reference, status, want); err != nil {
				return fmt.Errorf("%T %s: %w", route, name, err)
			}
		}
		return nil
	})
}

func parents(route client.Object) ([]gatewayv1.ParentReference, []gatewayv1.RouteParentStatus) {
	switch route := route.(type) {
	case *gatewayv1.HTTPRoute:
		return route.Spec.ParentRefs, route.Status.Parents
	case *gatewayv1.GRPCRoute:
		return route.Spec.ParentRefs, route.Status.Parents
	default:
		panic(fmt.Sprintf("no route that the suite knows: %T", route))
	}
}

// One controller that says so is enough: others may have entries for the same parentRef.
func parentHas(route client.Object, reference gatewayv1.ParentReference, status []gatewayv1.RouteParentStatus, want []metav1.Condition) error {
	err := fmt.Errorf("status has no entry for parentRef %s", describe(reference))
	for _, entry := range status {
		if !SameParent(route, reference, entry.ParentRef) {
			continue
		}
		if err = entryHas(route, entry, want); err == nil {
			return nil
		}
	}
	return err
}

func entryHas(route client.Object, entry gatewayv1.RouteParentStatus, want []metav1.Condition) error {
	for _, wanted := range want {
		got := apimeta.FindStatusCondition(entry.Conditions, wanted.Type)
		switch {
		case got == nil:
			return fmt.Errorf("%s has no condition %s", describe(entry.ParentRef), wanted.Type)
		case got.Status != wanted.Status || wanted.Reason != "" && got.Reason != wanted.Reason:
			return fmt.Errorf("%s has %s=%s/%s, not %s/%s: %s",
				describe(entry.ParentRef), got.Type, got.Status, got.Reason, wanted.Status, wanted.Reason, got.Message)
		case got.ObservedGeneration != route.GetGeneration():
			return fmt.Errorf("%s has %s of generation %d, the route is at %d",
				describe(entry.ParentRef), got.Type, got.ObservedGeneration, route.GetGeneration())
		}
	}
	return nil
}

// SameParent tells whether an entry of status is about a parentRef: it has the same fields, though a namespace that is the
// route's own may be left out in status, as upstream's helpers have it.
func SameParent(route client.Object, reference, entry gatewayv1.ParentReference) bool {
	own := gatewayv1.Namespace(route.GetNamespace())
	if entry.Namespace == nil && (reference.Namespace == nil || *reference.Namespace == own) {
		entry.Namespace = reference.Namespace
	}
	if reference.Namespace == nil && entry.Namespace != nil && *entry.Namespace == own {
		entry.Namespace = nil
	}
	return reflect.DeepEqual(reference, entry)
}

func describe(reference gatewayv1.ParentReference) string {
	text := string(*reference.Kind) + " " + string(reference.Name)
	if reference.Port != nil {
		text += fmt.Sprintf(" port %d", *reference.Port)
	}
	if reference.SectionName != nil {
		text += " section " + string(*reference.SectionName)
	}
	return text
}
