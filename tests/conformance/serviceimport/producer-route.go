package serviceimport

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance/utils/echo"
	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportProducerRoute, "producer")
}

// GEP-1294: a route in its parent's namespace applies "to all incoming requests to the service, including from clients in other
// namespaces".
var MeshServiceImportProducerRoute = suite.ConformanceTest{
	ShortName:   "MeshServiceImportProducerRoute",
	Description: "A route in the namespace of its ServiceImport is for clients of every namespace",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
	},
	Manifests: []string{"producer-route.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		inForce(t, s, "producer")
		for _, namespace := range []string{Namespace, ConsumerNamespace} {
			t.Run("client in "+namespace, func(t *testing.T) {
				from := echo.ConnectToAppInNamespace(t, s, ClientApp, namespace)
				clusterset.ExpectEach(t, s, from, []http.ExpectedResponse{
					answered(name("producer"), "/cart", "cart"),
					refused(name("producer"), "/", 404),
				})
			})
		}
	},
}
