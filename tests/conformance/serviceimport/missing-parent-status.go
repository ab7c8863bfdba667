package serviceimport

import (
	"testing"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportMissingParentStatus)
}

// RouteStatus.parents: "parent references that cannot be resolved [...] will not be added to this list". This mesh says it there
// nevertheless, as others do (D-11). A headless ServiceImport has no ClusterSetIP to intercept (KEP-1645) and is out of scope as
// parent (GEP-1748, GEP-1294).
var MeshServiceImportMissingParentStatus = suite.ConformanceTest{
	ShortName:   "MeshServiceImportMissingParentStatus",
	Description: "A route on a ServiceImport that does not exist or is headless says so in its status",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
		SupportMissingParentStatus,
	},
	Manifests: []string{"missing-parent-status.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		mustHave(t, s, []string{"missing-parent", "headless-parent"}, clusterset.NotAccepted(gatewayv1.RouteReasonNoMatchingParent))
	},
}
