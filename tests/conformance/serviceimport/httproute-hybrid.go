package serviceimport

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportHybrid, "hybrid")
}

// GEP-1748's example of both kinds of backends with a ServiceImport as parent: "references to Services SHOULD always be interpreted
// as references to endpoints within the same cluster", "references to ServiceImports MUST be interpreted as routing to
// Multi-Cluster endpoints across the ClusterSet". `store` is an import, too, whose endpoints must not become the Service's.
var MeshServiceImportHybrid = suite.ConformanceTest{
	ShortName:   "MeshServiceImportHybrid",
	Description: "Of a Service and a ServiceImport as backends each gets its weight, the Service in its own cluster alone",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
	},
	Manifests: []string{"httproute-hybrid.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		from := client(t, s)
		inForce(t, s, "hybrid")
		clusterset.Expect(t, s, from, answered(name("hybrid"), "/probe", "cart"))
		counts := clusterset.Shares(t, s, from, answered(name("hybrid"), "/", ""), 1000)
		counts.MustBeShared(t, map[string]float64{"store-first": 0.9, "cart": 0.1})
		// Of about 100 requests none in one of the clusters, by chance: 2 * 0.95^1000 = 1e-22.
		counts.MustHaveAll(t, "cart-first", "cart-second")
	},
}
