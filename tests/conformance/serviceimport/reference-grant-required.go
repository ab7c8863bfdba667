package serviceimport

import (
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportReferenceGrantRequired, "grant-required")
}

// HTTPBackendRef: across namespaces "a ReferenceGrant object is required in the referent namespace"; without it the backend is
// invalid, reason RefNotPermitted, and its requests MUST get 500. GEP-1294 would have a mesh allow it, hence the feature (D-4).
var MeshServiceImportReferenceGrantRequired = suite.ConformanceTest{
	ShortName:   "MeshServiceImportReferenceGrantRequired",
	Description: "A backendRef to a ServiceImport of a third namespace is good while a ReferenceGrant there says so, and no longer",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
		SupportReferenceGrantRequired,
	},
	Manifests: []string{"reference-grant-required.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		from := client(t, s)
		inForce(t, s, "grant-required")
		clusterset.Expect(t, s, from, answered(name("grant-required"), "/bar", "bar"))
		grant := &gatewayv1.ReferenceGrant{ObjectMeta: metav1.ObjectMeta{Namespace: ForeignNamespace, Name: "grant-required"}}
		require.NoError(t, s.Client.Delete(t.Context(), grant))
		mustHave(t, s, []string{"grant-required"}, clusterset.Accepted(), clusterset.UnresolvedRefs(gatewayv1.RouteReasonRefNotPermitted))
		clusterset.Expect(t, s, from, refused(name("grant-required"), "/bar", 500))
	},
}
