package serviceimport

import (
	"testing"

	"google.golang.org/grpc/codes"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportGRPCRouteErrors, "grpc-unmatched", "grpc-unavailable")
}

// What no rule matches gets UNIMPLEMENTED, as upstream's tests of GRPCRoutes have it (and as grpc clients read a 404). Where a backend
// is invalid, its share of the calls MUST get UNAVAILABLE (GRPCRouteRule.backendRefs).
var MeshServiceImportGRPCRouteErrors = suite.ConformanceTest{
	ShortName:   "MeshServiceImportGRPCRouteErrors",
	Description: "Calls that no rule matches are UNIMPLEMENTED, those to a ServiceImport that does not exist UNAVAILABLE",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportGRPCRoute,
		SupportMeshServiceImport,
	},
	Manifests: []string{"grpcroute-errors.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		from := client(t, s)
		clusterset.GRPCRouteMustHave(t, s, in(Namespace, "grpc-unmatched"), clusterset.Accepted(), clusterset.ResolvedRefs())
		clusterset.GRPCRouteMustHave(t, s, in(Namespace, "grpc-unavailable"),
			clusterset.Accepted(), clusterset.UnresolvedRefs(gatewayv1.RouteReasonBackendNotFound))
		t.Run("no rule matches", func(t *testing.T) {
			clusterset.ExpectCalls(t, s, from, name("grpc-unmatched")+":7070", codes.Unimplemented.String())
		})
		t.Run("half of the weight is invalid", func(t *testing.T) {
			address := name("grpc-unavailable") + ":7070"
			clusterset.ExpectCalls(t, s, from, address, "cart", "-H", "x-probe:cart")
			counts := clusterset.Calls(t, s, from, address, 200).Believe(codes.Unavailable)
			counts.MustBeShared(t, map[string]float64{"store": 0.5, codes.Unavailable.String(): 0.5})
		})
	},
}
