package serviceimport

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportEndpointShares, "shares")
}

// KEP-1645: requests to a ClusterSetIP "will be spread across all endpoints exported". One of three is in the
// first cluster. How requests are shared within a cluster is left to the mesh.
var MeshServiceImportEndpointShares = suite.ConformanceTest{
	ShortName:   "MeshServiceImportEndpointShares",
	Description: "Each cluster's share of the requests to a ServiceImport is its share of the ready endpoints",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
		SupportMeshServiceImportEndpointShares,
	},
	Manifests: []string{"endpoint-shares.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		from := client(t, s)
		inForce(t, s, "shares")
		clusterset.Expect(t, s, from, answered(name("shares"), "/probe", "cart"))
		counts := clusterset.Shares(t, s, from, answered(name("shares"), "/", ""), 600)
		counts.MustBeOnly(t, "store-first", "store-second", "cart-second")
		counts.ByCluster().MustBeShared(t, map[string]float64{clusterset.First: 1.0 / 3, clusterset.Second: 2.0 / 3})
	},
}
