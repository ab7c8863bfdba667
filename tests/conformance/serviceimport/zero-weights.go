package serviceimport

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportZeroWeights, "zero-weights")
}

// BackendRef.weight: "if weight is set to 0, no traffic should be forwarded for this entry". What becomes of requests where that is
// so for all entries is not said; here they get 500, and the references stay good (D-9).
var MeshServiceImportZeroWeights = suite.ConformanceTest{
	ShortName:   "MeshServiceImportZeroWeights",
	Description: "Where no backend has a weight, requests get 500",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
		SupportZeroWeights,
	},
	Manifests: []string{"zero-weights.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		inForce(t, s, "zero-weights")
		clusterset.Expect(t, s, client(t, s), refused(name("zero-weights"), "/", 500))
	},
}
