package serviceimport

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportSimple, "simple")
}

// GEP-1748's simple example with a ServiceImport as parent. The port of a backendRef is one of spec.ports of the ServiceImport, not
// of its pods; a rule without matches matches everything (HTTPRouteRule).
var MeshServiceImportSimple = suite.ConformanceTest{
	ShortName:   "MeshServiceImportSimple",
	Description: "All requests to a ServiceImport go to another one, in all its clusters",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
	},
	Manifests: []string{"httproute-simple.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		from := client(t, s)
		inForce(t, s, "simple")
		clusterset.ExpectEach(t, s, from, []http.ExpectedResponse{
			answered(name("simple"), "/", "cart"),
			answered(name("simple"), "/any/path?with=query", "cart"),
			answered(name("simple")+":8080", "/", "cart"),
		})
		counts := clusterset.Shares(t, s, from, answered(name("simple"), "/", "cart"), clusterset.SpreadCount)
		counts.MustHaveAll(t, "cart-first", "cart-second")
	},
}
