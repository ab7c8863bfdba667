package serviceimport

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportNoChaining, "chain-front", "chain-back")
}

// GEP-1294: a route is for a frontend, a backendRef means the endpoints of the backend; "only the first [level of routes] will be
// used". The route of `chain-back` would lead to `cart`; what comes by way of `chain-front` must not take it.
var MeshServiceImportNoChaining = suite.ConformanceTest{
	ShortName:   "MeshServiceImportNoChaining",
	Description: "The routes of a backend are not consulted",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
	},
	Manifests: []string{"no-chaining.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		inForce(t, s, "chain-front", "chain-back")
		clusterset.ExpectEach(t, s, client(t, s), []http.ExpectedResponse{
			withHeader(answered(name("chain-back"), "/", "cart"), "X-Passed", "chain-back"),
			withHeader(answered(name("chain-front"), "/", "store"), "X-Passed", "chain-front"),
		})
	},
}
