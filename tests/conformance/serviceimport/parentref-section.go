package serviceimport

import (
	"testing"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportSectionName, "section", "section-port", "section-mismatch", "section-unknown")
}

// ParentReference: for a Service, sectionName is a port's name, and where port is set too "the name and port of the selected
// [port] must match both specified values". For other kinds an implementation MUST document its reading; this is one (D-6).
var MeshServiceImportSectionName = suite.ConformanceTest{
	ShortName:   "MeshServiceImportSectionName",
	Description: "A sectionName is the name of a port of the ServiceImport, and contradicts any other port",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		features.SupportHTTPRouteParentRefPort,
		SupportMeshServiceImport,
		SupportMeshServiceImportParentRefPort,
		SupportServiceImportSectionName,
	},
	Manifests: []string{"parentref-section.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		from := client(t, s)
		inForce(t, s, "section", "section-port")
		clusterset.ExpectEach(t, s, from, []http.ExpectedResponse{
			answered(name("section")+":8080", "/", "cart"),
			answered(name("section")+":80", "/", "store"),
			answered(name("section-port")+":8080", "/", "cart"),
			answered(name("section-port")+":80", "/", "store"),
		})
		mustHave(t, s, []string{"section-mismatch", "section-unknown"}, clusterset.NotAccepted(gatewayv1.RouteReasonNoMatchingParent))
		clusterset.ExpectEach(t, s, from, []http.ExpectedResponse{
			answered(name("section-mismatch")+":8080", "/", "store"),
			answered(name("section-mismatch")+":80", "/", "store"),
			answered(name("section-unknown")+":8080", "/", "store"),
			answered(name("section-unknown")+":80", "/", "store"),
		})
	},
}
