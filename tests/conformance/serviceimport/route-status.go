package serviceimport

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportRouteStatus, "status")
}

const (
	otherController = "example.com/other-controller"
	otherCondition  = "example.com/OtherCondition"
)

// RouteParentStatus and RouteStatus.parents: each parentRef has an entry of its own; conditions carry the generation they are about;
// an implementation MUST NOT update entries of other controllers, nor remove conditions that are not its own; entries that are no
// longer necessary are cleaned up. GEP-1294: a mesh "MUST set a status field".
var MeshServiceImportRouteStatus = suite.ConformanceTest{
	ShortName:   "MeshServiceImportRouteStatus",
	Description: "Status has the parentRef as it is written, follows each generation of the route and leaves alone what is of others",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
	},
	Manifests: []string{"route-status.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		inForce(t, s, "status")
		t.Run("a parent that is not the mesh's gets no entry", func(t *testing.T) {
			route := getRoute(t, s)
			for _, entry := range route.Status.Parents {
				require.NotEqual(t, gatewayv1.Kind("Gateway"), *entry.ParentRef.Kind, "%v", entry)
			}
		})

		before := writeAsOther(t, s)
		t.Run("a change to the route is followed, and what is of others stays", func(t *testing.T) {
			changeRoute(t, s, func(spec *gatewayv1.HTTPRouteSpec) {
				spec.Rules[0].BackendRefs[0].Name = "missing"
			})
			mustHave(t, s, []string{"status"}, clusterset.Accepted(), clusterset.UnresolvedRefs(gatewayv1.RouteReasonBackendNotFound))
			othersMustStay(t, before, getRoute(t, s))
			changeRoute(t, s, func(spec *gatewayv1.HTTPRouteSpec) {
				spec.Rules[0].BackendRefs[0].Name = "cart"
			})
			inForce(t, s, "status")
			othersMustStay(t, before, getRoute(t, s))
		})

		t.Run("the entry goes with its parentRef, and that of others stays", func(t *testing.T) {
			// What is not the mesh's in its own entry would be a reason to keep it.
			changeStatus(t, s, func(status *gatewayv1.RouteStatus) {
				for i := range status.Parents {
					apimeta.RemoveStatusCondition(&status.Parents[i].Conditions, otherCondition)
				}
			})
			changeRoute(t, s, func(spec *gatewayv1.HTTPRouteSpec) {
				spec.ParentRefs = slices.DeleteFunc(spec.ParentRefs, func(reference gatewayv1.ParentReference) bool {
					return *reference.Kind == "ServiceImport"
				})
			})
			clusterset.Await(t, s.TimeoutConfig.RouteMustHaveParents, func(context.Context) error {
				for _, entry := range getRoute(t, s).Status.Parents {
					if *entry.ParentRef.Kind == "ServiceImport" {
						return fmt.Errorf("there is still an entry of %s for %s", entry.ControllerName, entry.ParentRef.Name)
					}
				}
				return nil
			})
			require.NoError(t, otherEntryIsAsBefore(before, getRoute(t, s)))
		})
	},
}

// Another controller writes an entry for the route's other parent and a condition into the mesh's entry: the route as it is then.
func writeAsOther(t *testing.T, s *suite.ConformanceTestSuite) *gatewayv1.HTTPRoute {
	t.Helper()
	condition := metav1.Condition{
		Status: metav1.ConditionTrue, Reason: "Tested", Message: "Not the mesh's.", LastTransitionTime: metav1.Now(), ObservedGeneration: 1,
	}
	return changeStatus(t, s, func(status *gatewayv1.RouteStatus) {
		for i := range status.Parents {
			condition.Type = otherCondition
			apimeta.SetStatusCondition(&status.Parents[i].Conditions, condition)
		}
		condition.Type = string(gatewayv1.RouteConditionAccepted)
		status.Parents = append(status.Parents, gatewayv1.RouteParentStatus{
			ParentRef: gatewayv1.ParentReference{
				Group: new(gatewayv1.Group(gatewayv1.GroupName)), Kind: new(gatewayv1.Kind("Gateway")), Name: "nowhere",
			},
			ControllerName: otherController,
			Conditions:     []metav1.Condition{condition},
		})
	})
}

func othersMustStay(t *testing.T, before, after *gatewayv1.HTTPRoute) {
	t.Helper()
	require.NoError(t, otherEntryIsAsBefore(before, after))
	for _, entry := range before.Status.Parents {
		if entry.ControllerName == otherController {
			continue
		}
		now := slices.IndexFunc(after.Status.Parents, func(candidate gatewayv1.RouteParentStatus) bool {
			return candidate.ControllerName == entry.ControllerName && reflect.DeepEqual(candidate.ParentRef, entry.ParentRef)
		})
		require.NotEqual(t, -1, now, "entry of %s", entry.ControllerName)
		require.Equal(t,
			apimeta.FindStatusCondition(entry.Conditions, otherCondition),
			apimeta.FindStatusCondition(after.Status.Parents[now].Conditions, otherCondition),
			"a condition that is not the mesh's")
	}
}

func otherEntryIsAsBefore(before, after *gatewayv1.HTTPRoute) error {
	of := func(route *gatewayv1.HTTPRoute) []gatewayv1.RouteParentStatus {
		return slices.DeleteFunc(slices.Clone(route.Status.Parents), func(entry gatewayv1.RouteParentStatus) bool {
			return entry.ControllerName != otherController
		})
	}
	if !reflect.DeepEqual(of(before), of(after)) {
		return errors.New("the entry of another controller was changed")
	}
	return nil
}

func getRoute(t *testing.T, s *suite.ConformanceTestSuite) *gatewayv1.HTTPRoute {
	t.Helper()
	route := &gatewayv1.HTTPRoute{}
	require.NoError(t, s.Client.Get(t.Context(), in(Namespace, "status"), route))
	return route
}

func changeRoute(t *testing.T, s *suite.ConformanceTestSuite, change func(*gatewayv1.HTTPRouteSpec)) {
	t.Helper()
	require.NoError(t, retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		route := getRoute(t, s)
		change(&route.Spec)
		return s.Client.Update(t.Context(), route)
	}))
}

func changeStatus(t *testing.T, s *suite.ConformanceTestSuite, change func(*gatewayv1.RouteStatus)) (written *gatewayv1.HTTPRoute) {
	t.Helper()
	require.NoError(t, retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		written = getRoute(t, s)
		change(&written.Status.RouteStatus)
		return s.Client.Status().Update(t.Context(), written)
	}))
	return written
}
