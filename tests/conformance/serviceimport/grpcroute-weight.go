package serviceimport

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportGRPCRouteWeight, "grpc-weight")
}

// BackendRef.weight is about requests, of which a connection of gRPC carries many.
var MeshServiceImportGRPCRouteWeight = suite.ConformanceTest{
	ShortName:   "MeshServiceImportGRPCRouteWeight",
	Description: "Weights of ServiceImports are their shares of the calls, also of those on one connection",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportGRPCRoute,
		SupportMeshServiceImport,
	},
	Manifests: []string{"grpcroute-weight.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		from, address := client(t, s), name("grpc-weight")+":7070"
		clusterset.GRPCRouteMustHave(t, s, in(Namespace, "grpc-weight"), clusterset.Accepted(), clusterset.ResolvedRefs())
		clusterset.ExpectCalls(t, s, from, address, "cart", "-H", "x-probe:cart")
		clusterset.Calls(t, s, from, address, 500).MustBeShared(t, map[string]float64{"store": 0.7, "cart": 0.3})
	},
}
