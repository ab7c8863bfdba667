package serviceimport

import (
	"net"
	"testing"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/kubernetes"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
	mcs "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportIPs)
}

// KEP-1645: ips are given by the provider, at a time of its choice; exports that disagree can change the type. GEP-1748: what is
// intercepted is the ClusterSetIP, hence each one from when it is there until it is not. Here the test is the provider. Addresses
// are ClusterIPs of Services that lead to `store`; the route leads to `cart`.
var MeshServiceImportIPs = suite.ConformanceTest{
	ShortName:   "MeshServiceImportIPs",
	Description: "A route follows the ClusterSetIP that comes late and changes, and the type that becomes Headless",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
		SupportMeshServiceImportClusterSetIPMatching,
		SupportServiceImportUnmanaged,
	},
	Manifests: []string{"import-ips.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		from, parent, first := client(t, s), in(Namespace, "import-ips"), clusters.First
		expect := func(vip, app string) {
			clusterset.Expect(t, s, from, answered(net.JoinHostPort(vip, "80"), "/", app))
		}
		notAccepted := func() {
			if s.SupportedFeatures.Has(SupportMissingParentStatus) {
				mustHave(t, s, []string{"import-ips"}, clusterset.NotAccepted(gatewayv1.RouteReasonNoMatchingParent))
			}
		}
		is := func(kind mcs.ServiceImportType, ips ...string) {
			first.ChangeImport(t, parent, func(spec *mcs.ServiceImportSpec) { spec.Type, spec.IPs = kind, ips })
		}

		first.CreateImport(t, s, parent)
		one := first.CreateVIP(t, s, parent, "import-ips-one", "store")
		other := first.CreateVIP(t, s, parent, "import-ips-other", "store")
		notAccepted()
		expect(one, "store")

		is(mcs.ClusterSetIP, one)
		inForce(t, s, "import-ips")
		expect(one, "cart")

		is(mcs.ClusterSetIP, other)
		expect(other, "cart")
		expect(one, "store")
		inForce(t, s, "import-ips")

		is(mcs.Headless)
		notAccepted()
		expect(other, "store")

		is(mcs.ClusterSetIP, other)
		inForce(t, s, "import-ips")
		expect(other, "cart")

		// Its Services go with it, and so do their addresses.
		first.DeleteImport(t, parent)
		kubernetes.HTTPRouteMustHaveNoAcceptedParents(t, s.Client, s.TimeoutConfig, in(Namespace, "import-ips"))
		first.CreateImport(t, s, parent)
		again := first.CreateVIP(t, s, parent, "import-ips-again", "store")
		is(mcs.ClusterSetIP, again)
		inForce(t, s, "import-ips")
		expect(again, "cart")
	},
}
