package serviceimport

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportHostnames, "hostnames")
}

// GEP-1294: "GAMMA implementations SHOULD NOT infer any functionality from the hostnames field"; who means the Host header matches
// on it as a header.
var MeshServiceImportHostnames = suite.ConformanceTest{
	ShortName:   "MeshServiceImportHostnames",
	Description: "The hostnames of a route change nothing, a match on the Host header does",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
		SupportMeshServiceImportHostnamesIgnored,
	},
	Manifests: []string{"hostnames.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		inForce(t, s, "hostnames")
		clusterset.ExpectEach(t, s, client(t, s), []http.ExpectedResponse{
			called("another Host than in hostnames", withHeader(answered(name("hostnames"), "/", "store"), "X-Route", "hostnames")),
			called("a Host that a rule matches", withHost(answered(name("hostnames"), "/", "cart"), "special.example.com")),
			called("the Host in hostnames", withHost(withHeader(answered(name("hostnames"), "/", "store"), "X-Route", "hostnames"), "unrelated.example.com")),
		})
	},
}
