package serviceimport

import (
	"testing"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportPortlessBackend, "portless", "portless-ambiguous")
}

// BackendObjectReference.port: for other resources than Services the "destination port might be derived from the referent resource
// or this field". GEP-1748's examples leave it out. Derived is what was dialled, else the only port there is (D-7).
var MeshServiceImportPortlessBackend = suite.ConformanceTest{
	ShortName:   "MeshServiceImportPortlessBackend",
	Description: "The port of a backend is the dialled one, else the only one; if it is neither, the backend is invalid",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
		SupportPortlessBackend,
	},
	Manifests: []string{"portless-backend.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		inForce(t, s, "portless")
		mustHave(t, s, []string{"portless-ambiguous"}, clusterset.Accepted(), clusterset.UnresolvedRefs(gatewayv1.RouteReasonBackendNotFound))
		clusterset.ExpectEach(t, s, client(t, s), []http.ExpectedResponse{
			answered(name("portless"), "/same", "cart"),
			answered(name("portless")+":8080", "/same", "cart"),
			answered(name("portless"), "/sole", "store"),
			answered(name("portless")+":8080", "/sole", "store"),
			refused(name("portless-ambiguous"), "/", 500),
		})
	},
}
