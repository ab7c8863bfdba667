package serviceimport

import (
	"net"
	"testing"

	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
	mcs "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportDerivedService)
}

// KEP-1645 lets a provider take the ClusterIP of a Service of its own as ClusterSetIP, as the reference controller does. One address
// is then two frontends by GEP-1294's rule of matching by IP; routes of both are one group, merged in the usual way (D-8).
var MeshServiceImportDerivedService = suite.ConformanceTest{
	ShortName:   "MeshServiceImportDerivedService",
	Description: "Routes of a ServiceImport and of the Service that holds its ClusterSetIP are in force together",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
		SupportMeshServiceImportClusterSetIPMatching,
		SupportServiceImportUnmanaged,
		SupportDerivedService,
	},
	Manifests: []string{"derived-service.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		parent := in(Namespace, "derived-import")
		clusters.First.CreateImport(t, s, parent)
		vip := clusters.First.CreateVIP(t, s, parent, "derived-vip", "store")
		clusters.First.ChangeImport(t, parent, func(spec *mcs.ServiceImportSpec) { spec.IPs = []string{vip} })
		inForce(t, s, "derived-import", "derived-service")
		address := net.JoinHostPort(vip, "80")
		clusterset.ExpectEach(t, s, client(t, s), []http.ExpectedResponse{
			answered(address, "/import", "cart"),
			answered(address, "/service", "cart"),
			refused(address, "/else", 404),
		})
	},
}
