package serviceimport

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportSelfBackend, "self", "mutual-a", "mutual-b")
}

// GEP-1294: "if we have multiple levels of Routes defined, only the first will be used". The parent as its own backend is how a
// route keeps the default for what its other rules do not match. The pods are those of `store`; a header added twice would show a
// second pass.
var MeshServiceImportSelfBackend = suite.ConformanceTest{
	ShortName:   "MeshServiceImportSelfBackend",
	Description: "A ServiceImport can be its own backend, and two can be each other's: a request passes one route and arrives",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
	},
	Manifests: []string{"self-backend.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		inForce(t, s, "self", "mutual-a", "mutual-b")
		clusterset.ExpectEach(t, s, client(t, s), []http.ExpectedResponse{
			withHeader(answered(name("self"), "/", "store"), "X-Passed", "self"),
			withHeader(answered(name("mutual-a"), "/", "store"), "X-Passed", "mutual-a"),
			withHeader(answered(name("mutual-b"), "/", "store"), "X-Passed", "mutual-b"),
		})
	},
}
