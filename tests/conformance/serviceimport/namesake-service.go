package serviceimport

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportNamesakeService, "namesake", "namesake-service")
}

// GEP-1748 "Services vs ServiceImports": the two are "analogous to using .cluster.local versus .clusterset.local DNS"; KEP-1645:
// consumers of the former are not affected by an import of the same name. Here each name is a Service and a ServiceImport.
var MeshServiceImportNamesakeService = suite.ConformanceTest{
	ShortName:   "MeshServiceImportNamesakeService",
	Description: "Routes of a ServiceImport do not touch the Service of the same name, nor the reverse",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
	},
	Manifests: []string{"namesake-service.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		inForce(t, s, "namesake", "namesake-service")
		clusterset.ExpectEach(t, s, client(t, s), []http.ExpectedResponse{
			called("the import has the route", answered(name("namesake"), "/", "cart")),
			called("its Service has not, and is local", answered("namesake", "/", "store-first")),
			called("the Service has the route, whose backend is local", answered("namesake-service", "/", "cart-first")),
			called("its import has not", answered(name("namesake-service"), "/", "store")),
		})
	},
}
