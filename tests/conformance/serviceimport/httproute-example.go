package serviceimport

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportExample)
}

// GEP-1748 "Mesh: ServiceImport as Parent": the mesh intercepts traffic to the ClusterSetIP of `store` and sends what is under
// /cart to the Multi-Cluster Service `cart`, to all its clusters (KEP-1645), as it came (HTTPRouteSpec.hostnames:
// Host MUST be forwarded unmodified). What no rule matches MUST get 404 (HTTPRouteRule; GEP-1294: the route replaces the implicit default).
var MeshServiceImportExample = suite.ConformanceTest{
	ShortName:   "MeshServiceImportExample",
	Description: "The example of GEP-1748, an HTTPRoute from one ServiceImport to another, does what the GEP says",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
	},
	Manifests: []string{"httproute-example.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		from := client(t, s)
		inForce(t, s, "store")
		clusterset.ExpectEach(t, s, from, []http.ExpectedResponse{
			answered(name("store"), "/cart", "cart"),
			answered(name("store"), "/cart/", "cart"),
			answered(name("store"), "/cart/item", "cart"),
			answered(name("store"), "/cart/item?of=x&of=y", "cart"),
			refused(name("store"), "/", 404),
			refused(name("store"), "/cartoon", 404),
			refused(name("store"), "/Cart", 404),
			refused(name("store"), "/item/cart", 404),
		})
		t.Run("every cluster's endpoints get requests", func(t *testing.T) {
			counts := clusterset.Shares(t, s, from, answered(name("store"), "/cart", "cart"), clusterset.SpreadCount)
			counts.MustHaveAll(t, "cart-first", "cart-second")
		})
	},
}
