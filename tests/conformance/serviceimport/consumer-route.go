package serviceimport

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance/utils/echo"
	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/kubernetes"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportConsumerRoute, "consumed")
}

// GEP-1294: a route in another namespace than its parent's is for clients of its own namespace alone, and "requests from a namespace
// with consumer routes will utilize the (possibly merged) set of routes in the consumer namespace": those replace the producer's
// wholly, and what they do not match MUST get 404 (HTTPRouteRule).
var MeshServiceImportConsumerRoute = suite.ConformanceTest{
	ShortName:   "MeshServiceImportConsumerRoute",
	Description: "A route in another namespace is for clients of that namespace alone, and there in the place of the producer's routes",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
		SupportMeshServiceImportConsumerRoute,
	},
	Manifests: []string{"consumer-route.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		producer := client(t, s)
		consumer := echo.ConnectToAppInNamespace(t, s, ClientApp, ConsumerNamespace)
		inForce(t, s, "consumed")
		clusterset.HTTPRouteMustHave(t, s, in(ConsumerNamespace, "consumer"), clusterset.Accepted(), clusterset.ResolvedRefs())
		t.Run("client in the namespace of the consumer route", func(t *testing.T) {
			clusterset.ExpectEach(t, s, consumer, []http.ExpectedResponse{
				withHeader(answered(name("consumed"), "/own", "cart"), "X-Route", "consumer"),
				refused(name("consumed"), "/cart", 404),
			})
		})
		t.Run("client elsewhere", func(t *testing.T) {
			clusterset.ExpectEach(t, s, producer, []http.ExpectedResponse{
				withHeader(answered(name("consumed"), "/cart", "cart"), "X-Route", "producer"),
				refused(name("consumed"), "/own", 404),
			})
		})
		t.Run("without the consumer route the producer route is for all", func(t *testing.T) {
			kubernetes.DeleteHTTPRoute(t, s.Client, in(ConsumerNamespace, "consumer"))
			clusterset.Expect(t, s, consumer, withHeader(answered(name("consumed"), "/cart", "cart"), "X-Route", "producer"))
		})
	},
}
