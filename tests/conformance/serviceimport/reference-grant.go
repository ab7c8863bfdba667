package serviceimport

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportReferenceGrant, "granted")
}

// GEP-1748 "Cross-Namespace References with ReferenceGrant", its example with a ServiceImport as parent.
var MeshServiceImportReferenceGrant = suite.ConformanceTest{
	ShortName:   "MeshServiceImportReferenceGrant",
	Description: "A backendRef may name a ServiceImport in another namespace that grants it",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
	},
	Manifests: []string{"reference-grant.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		inForce(t, s, "granted")
		clusterset.Expect(t, s, client(t, s), answered(name("granted"), "/bar", "bar"))
	},
}
