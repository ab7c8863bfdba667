package serviceimport

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/kubernetes"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportRouteMerging, "merging", "tie")
}

// HTTPRouteRule.matches: precedence is determined across all rules of all routes of the parent; where matches are equal, the
// oldest route by creationTimestamp wins, then the first one by "{namespace}/{name}". GEP-1294: merging in a mesh "follows the
// standard route merging behavior".
var MeshServiceImportRouteMerging = suite.ConformanceTest{
	ShortName:   "MeshServiceImportRouteMerging",
	Description: "Routes of one ServiceImport are merged: the older one wins where they match the same, then the first by name",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
	},
	Manifests: []string{"route-merging.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		from := client(t, s)
		t.Run("the older route wins", func(t *testing.T) {
			untilYoungerThan(t, s, "z-older")
			s.Applier.MustApplyWithCleanup(t, s.Client, s.TimeoutConfig, "route-merging-younger.yaml", s.CleanupTestResources)
			inForce(t, s, "z-older", "a-younger")
			clusterset.ExpectEach(t, s, from, []http.ExpectedResponse{
				answered(name("merging"), "/younger", "store"),
				answered(name("merging"), "/older", "cart"),
				answered(name("merging"), "/same", "cart"),
			})
			kubernetes.DeleteHTTPRoute(t, s.Client, in(Namespace, "z-older"))
			clusterset.ExpectEach(t, s, from, []http.ExpectedResponse{
				refused(name("merging"), "/older", 404),
				answered(name("merging"), "/same", "store"),
			})
		})
		t.Run("of two of the same second the first by name wins", func(t *testing.T) {
			createWithinASecond(t, s, "route-merging-tie.yaml", "tie-a", "tie-b")
			inForce(t, s, "tie-a", "tie-b")
			clusterset.ExpectEach(t, s, from, []http.ExpectedResponse{
				answered(name("tie"), "/b", "store"),
				answered(name("tie"), "/a", "cart"),
				answered(name("tie"), "/same", "cart"),
			})
			kubernetes.DeleteHTTPRoute(t, s.Client, in(Namespace, "tie-a"))
			clusterset.Expect(t, s, from, answered(name("tie"), "/same", "store"))
		})
	},
}

// Timestamps are whole seconds: what is created at once could be of the same one. The API server dates what it is only asked to try, too.
func untilYoungerThan(t *testing.T, s *suite.ConformanceTestSuite, older string) {
	t.Helper()
	var route gatewayv1.HTTPRoute
	require.NoError(t, s.Client.Get(t.Context(), in(Namespace, older), &route))
	require.Eventually(t, func() bool {
		tried := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "now-", Namespace: Namespace}}
		err := s.Client.Create(t.Context(), tried, crclient.DryRunAll)
		return err == nil && route.CreationTimestamp.Before(&tried.CreationTimestamp)
	}, 10*time.Second, 100*time.Millisecond, "the API server's clock stays in the second of %s", older)
}

// The API server dates the routes. That a second ends between them happens, but hardly ever so many times in a row.
func createWithinASecond(t *testing.T, s *suite.ConformanceTestSuite, manifest, one, other string) {
	t.Helper()
	for range 5 {
		s.Applier.MustApplyWithCleanup(t, s.Client, s.TimeoutConfig, manifest, s.CleanupTestResources)
		var first, second gatewayv1.HTTPRoute
		require.NoError(t, s.Client.Get(t.Context(), in(Namespace, one), &first))
		require.NoError(t, s.Client.Get(t.Context(), in(Namespace, other), &second))
		if first.CreationTimestamp.Equal(&second.CreationTimestamp) {
			return
		}
		kubernetes.DeleteHTTPRoute(t, s.Client, in(Namespace, one))
		kubernetes.DeleteHTTPRoute(t, s.Client, in(Namespace, other))
	}
	t.Fatalf("%s and %s could not be created within the same second", one, other)
}
