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
	register(MeshServiceImportInvalidBackend, "invalid", "invalid-kind", "no-backends")
}

// HTTPRouteRule.backendRefs: where all backends are invalid, requests MUST get 500; where some are, "the proportion of requests that
// would otherwise have been routed to an invalid backend MUST receive a 500". A ServiceImport that does not exist is not the
// Service of that name (GEP-1748 "Services vs ServiceImports"). Without any backendRef there is none to resolve, and the parent's
// own endpoints are not meant (GEP-1294: "Implementations MUST respect the standard backendRef rules").
var MeshServiceImportInvalidBackend = suite.ConformanceTest{
	ShortName:   "MeshServiceImportInvalidBackend",
	Description: "Backends that do not exist or are of an unknown kind get 500 for their share, and so do rules without backends",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
	},
	Manifests: []string{"invalid-backend.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		from := client(t, s)
		mustHave(t, s, []string{"invalid"}, clusterset.Accepted(), clusterset.UnresolvedRefs(gatewayv1.RouteReasonBackendNotFound))
		mustHave(t, s, []string{"invalid-kind"}, clusterset.Accepted(), clusterset.UnresolvedRefs(gatewayv1.RouteReasonInvalidKind))
		inForce(t, s, "no-backends")
		clusterset.ExpectEach(t, s, from, []http.ExpectedResponse{
			refused(name("invalid"), "/missing", 500),
			refused(name("invalid"), "/unexported", 500),
			answered(name("invalid"), "/harmless", "cart"),
			refused(name("invalid"), "/else", 404),
			refused(name("invalid-kind"), "/", 500),
			refused(name("no-backends"), "/none", 500),
			refused(name("no-backends"), "/empty-list", 500),
		})
		t.Run("half of the weight is invalid", func(t *testing.T) {
			half := http.ExpectedResponse{
				Request:  http.Request{Host: name("invalid"), Path: "/half"},
				Response: http.Response{StatusCodes: []int{200, 500}},
			}
			clusterset.Shares(t, s, from, half, 400).MustBeShared(t, map[string]float64{"cart": 0.5, "500": 0.5})
		})
		t.Run("no weight is invalid", func(t *testing.T) {
			harmless := answered(name("invalid"), "/harmless", "cart")
			clusterset.Shares(t, s, from, harmless, clusterset.SpreadCount).MustBeOnly(t, "cart")
		})
	},
}
