package serviceimport

import (
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportRouteKindConflict, "kinds")
}

// GEP-1294: "If multiple routes with different types both bind to the same Service and Port pair, only a single route type should be
// applied", GRPCRoute before HTTPRoute; the rejected ones are ignored and not accepted. The GEP calls the reason
// RouteReasonConflicted, by whose pattern it would read "Conflicted"; there is no constant, so any reason will do.
var MeshServiceImportRouteKindConflict = suite.ConformanceTest{
	ShortName:   "MeshServiceImportRouteKindConflict",
	Description: "Of a GRPCRoute and an HTTPRoute on a ServiceImport the GRPCRoute is in force, and the HTTPRoute once that is gone",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportGRPCRoute,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
		SupportMeshServiceImportRouteKindConflict,
	},
	Manifests: []string{"route-kind-conflict.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		from := client(t, s)
		clusterset.GRPCRouteMustHave(t, s, in(Namespace, "kinds-grpc"), clusterset.Accepted(), clusterset.ResolvedRefs())
		mustHave(t, s, []string{"kinds-http"}, clusterset.NotAccepted(""))
		clusterset.ExpectCalls(t, s, from, name("kinds")+":7070", "cart")
		winner := &gatewayv1.GRPCRoute{ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: "kinds-grpc"}}
		require.NoError(t, s.Client.Delete(t.Context(), winner))
		inForce(t, s, "kinds-http")
		clusterset.Expect(t, s, from, answered(name("kinds"), "/", "cart"))
	},
}
