package serviceimport

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportNoEndpoints, "no-endpoints")
}

// HTTPRouteRule.backendRefs: "when a HTTPBackendRef refers to a Service that has no ready endpoints, implementations SHOULD return a
// 503 for requests to that backend instead", and the same share as for invalid ones. GEP-1748: all of that "should apply equally
// whether the backend is a Service or ServiceImport". The reference itself is good.
var MeshServiceImportNoEndpoints = suite.ConformanceTest{
	ShortName:   "MeshServiceImportNoEndpoints",
	Description: "A ServiceImport without ready endpoints gets 503 for its share",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
		SupportMeshServiceImportNoEndpoints,
	},
	Manifests: []string{"no-endpoints.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		from := client(t, s)
		inForce(t, s, "no-endpoints")
		clusterset.Expect(t, s, from, refused(name("no-endpoints"), "/all", 503))
		half := http.ExpectedResponse{
			Request:  http.Request{Host: name("no-endpoints"), Path: "/half"},
			Response: http.Response{StatusCodes: []int{200, 503}},
		}
		clusterset.Shares(t, s, from, half, 400).MustBeShared(t, map[string]float64{"cart": 0.5, "503": 0.5})
	},
}
