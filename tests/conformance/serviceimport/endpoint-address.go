package serviceimport

import (
	"net"
	"testing"

	"sigs.k8s.io/gateway-api/conformance/utils/echo"
	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportEndpointAddress, "direct")
}

// GEP-1294: a route is for "a request sent to a Service frontend"; "when sent to a Service backend (ex: curl pod-ip), it would not"
// be used.
var MeshServiceImportEndpointAddress = suite.ConformanceTest{
	ShortName:   "MeshServiceImportEndpointAddress",
	Description: "A pod that is an endpoint of a ServiceImport, dialled by its own address, has no routes",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
	},
	Manifests: []string{"endpoint-address.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		from := client(t, s)
		store := echo.ConnectToAppInNamespace(t, s, "app=store", Namespace)
		inForce(t, s, "direct")
		clusterset.ExpectEach(t, s, from, []http.ExpectedResponse{
			called("by the ServiceImport", withHeader(answered(name("direct"), "/", "store"), "X-Route", "direct")),
			called("by the pod's address", withoutHeader(answered(net.JoinHostPort(store.Address, "8080"), "/", "store-first"), "X-Route")),
		})
	},
}
