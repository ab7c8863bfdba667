package serviceimport

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportWeight, "weight")
}

// BackendRef.weight: "the proportion of requests forwarded to the referenced backend", whatever the number of its endpoints.
var MeshServiceImportWeight = suite.ConformanceTest{
	ShortName:   "MeshServiceImportWeight",
	Description: "Weights of ServiceImports are their shares of the requests",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
	},
	Manifests: []string{"httproute-weight.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		from := client(t, s)
		inForce(t, s, "weight")
		clusterset.Expect(t, s, from, answered(name("weight"), "/probe", "cart"))
		counts := clusterset.Shares(t, s, from, answered(name("weight"), "/", ""), 500)
		counts.MustBeShared(t, map[string]float64{"store": 0.7, "cart": 0.3})
	},
}
