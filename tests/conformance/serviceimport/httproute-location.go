package serviceimport

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportLocation, "location")
}

// GEP-1748's example of routing by location with a ServiceImport as parent: three ServiceImports, one of which has the endpoints of
// both others. The longest matching prefix has precedence (HTTPRouteRule).
var MeshServiceImportLocation = suite.ConformanceTest{
	ShortName:   "MeshServiceImportLocation",
	Description: "Path prefixes choose between ServiceImports of one cluster each and one of both",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
	},
	Manifests: []string{"httproute-location.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		from := client(t, s)
		inForce(t, s, "location")
		clusterset.ExpectEach(t, s, from, []http.ExpectedResponse{
			answered(name("location"), "/first", "store-first"),
			answered(name("location"), "/first/item", "store-first"),
			answered(name("location"), "/second", "store-second"),
			answered(name("location"), "/second/item", "store-second"),
			answered(name("location"), "/", "store"),
		})
		for path, only := range map[string]string{"/first": "store-first", "/second": "store-second"} {
			clusterset.Shares(t, s, from, answered(name("location"), path, only), clusterset.SpreadCount).MustBeOnly(t, only)
		}
		counts := clusterset.Shares(t, s, from, answered(name("location"), "/firstborn", "store"), clusterset.SpreadCount)
		counts.MustHaveAll(t, "store-first", "store-second")
	},
}
