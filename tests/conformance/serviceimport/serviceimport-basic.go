package serviceimport

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportBasic, "basic")
}

// GEP-1294: "When no xRoute resources are defined, all traffic should implicitly work".
var MeshServiceImportBasic = suite.ConformanceTest{
	ShortName:   "MeshServiceImportBasic",
	Description: "A ServiceImport without routes is reached as if there were no mesh, on each of its ports",
	Features: []features.FeatureName{
		features.SupportMesh,
		SupportMeshServiceImport,
	},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		from := client(t, s)
		clusterset.ExpectEach(t, s, from, []http.ExpectedResponse{
			answered(name("basic"), "/", "store"),
			answered(name("basic")+":8080", "/some/path?with=query", "store"),
		})
		t.Run("gRPC", func(t *testing.T) {
			clusterset.ExpectCalls(t, s, from, name("basic")+":7070", "store")
		})
	},
}
