package serviceimport

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportClusterSetIP, "vip", "vip-plain")
}

// GEP-1748: meshes "intercept traffic destined for the ClusterSetIP"; GEP-1294: attachment is "determined based on the [...]
// ClusterSetIP (for ServiceImport) matching". A ServiceImport has up to two of them, one an IP family (KEP-1645).
var MeshServiceImportClusterSetIP = suite.ConformanceTest{
	ShortName:   "MeshServiceImportClusterSetIP",
	Description: "A frontend is each ClusterSetIP of the ServiceImport with each of its ports, whatever Host says",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
		SupportMeshServiceImportClusterSetIPMatching,
	},
	Manifests: []string{"clusterset-ip.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		from := client(t, s)
		inForce(t, s, "vip")
		found, err := clusters.First.Import(t.Context(), in(Namespace, "vip"))
		require.NoError(t, err)
		cases := []http.ExpectedResponse{
			answered(name("vip"), "/routed", "cart"),
			answered(name("vip")+":8080", "/routed", "cart"),
			refused(name("vip"), "/else", 404),
		}
		for _, ip := range found.Spec.IPs {
			for _, port := range []string{"80", "8080"} {
				address := net.JoinHostPort(ip, port)
				cases = append(cases,
					answered(address, "/routed", "cart"),
					refused(address, "/else", 404),
					called("any Host at "+address, withHost(answered(address, "/routed", "cart"), "elsewhere.example.com")))
			}
		}
		cases = append(cases, called("the frontend's name as Host at another ClusterSetIP",
			withHost(answered(name("vip-plain"), "/else", "store"), name("vip"))))
		clusterset.ExpectEach(t, s, from, cases)
	},
}
