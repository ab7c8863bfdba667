package serviceimport

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportCrossNamespaceBackend, "ungranted")
}

// GEP-1294: mesh routes "can send traffic to backendRefs in any namespace. Unlike Gateway bound routes, this is allowed without a
// ReferenceGrant". A mesh that wants grants nevertheless does not claim the feature.
var MeshServiceImportCrossNamespaceBackend = suite.ConformanceTest{
	ShortName:   "MeshServiceImportCrossNamespaceBackend",
	Description: "A backendRef may name a ServiceImport in any namespace",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
		SupportMeshServiceImportCrossNamespaceBackend,
	},
	Manifests: []string{"cross-namespace-backend.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		inForce(t, s, "ungranted")
		clusterset.Expect(t, s, client(t, s), answered(name("ungranted"), "/bar", "bar"))
	},
}
