package serviceimport

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/kubernetes"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportParentRefPort, "port", "port-unknown")
}

// GEP-1294: "If port is set, the implementation MUST associate the route only with that port", and ServiceImports "MUST adhere
// to the spec's prescriptions". Other ports keep the implicit default, they do not become 404.
var MeshServiceImportParentRefPort = suite.ConformanceTest{
	ShortName:   "MeshServiceImportParentRefPort",
	Description: "A parentRef with a port attaches to that port of the ServiceImport alone, or to nothing if there is no such port",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		features.SupportHTTPRouteParentRefPort,
		SupportMeshServiceImport,
		SupportMeshServiceImportParentRefPort,
	},
	Manifests: []string{"parentref-port.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		from := client(t, s)
		inForce(t, s, "port")
		clusterset.ExpectEach(t, s, from, []http.ExpectedResponse{
			answered(name("port")+":8080", "/", "cart"),
			answered(name("port")+":80", "/", "store"),
		})
		t.Run("the gRPC port is left alone", func(t *testing.T) {
			clusterset.ExpectCalls(t, s, from, name("port")+":7070", "store")
		})
		t.Run("a port that the ServiceImport has not", func(t *testing.T) {
			kubernetes.HTTPRouteMustHaveNoAcceptedParents(t, s.Client, s.TimeoutConfig, in(Namespace, "port-unknown"))
			clusterset.ExpectEach(t, s, from, []http.ExpectedResponse{
				answered(name("port-unknown")+":8080", "/", "store"),
				answered(name("port-unknown")+":80", "/", "store"),
			})
		})
	},
}
