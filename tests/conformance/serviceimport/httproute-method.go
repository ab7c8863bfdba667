package serviceimport

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportMethod, "method")
}

// GEP-1748's example of routing by method with a ServiceImport as parent. A match with a method has precedence over one without, at
// the same path (HTTPRouteRule).
var MeshServiceImportMethod = suite.ConformanceTest{
	ShortName:   "MeshServiceImportMethod",
	Description: "Methods choose between ServiceImports",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		features.SupportHTTPRouteMethodMatching,
		SupportMeshServiceImport,
	},
	Manifests: []string{"httproute-method.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		inForce(t, s, "method")
		var cases []http.ExpectedResponse
		for _, method := range []string{"POST", "PUT", "DELETE"} {
			cases = append(cases, withMethod(answered(name("method"), "/any", "cart"), method))
		}
		for _, method := range []string{"GET", "PATCH", "OPTIONS"} {
			cases = append(cases, withMethod(answered(name("method"), "/any", "store"), method))
		}
		clusterset.ExpectEach(t, s, client(t, s), cases)
	},
}

func withMethod(want http.ExpectedResponse, method string) http.ExpectedResponse {
	want.Request.Method = method
	return called(method, want)
}
