package serviceimport

import (
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
	mcs "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportEndpointSliceObjects, "slices")
}

// KEP-1645: a provider MUST say in status whether EndpointSlices are there, by which implementations of Gateway API can "decide
// whether to consume EndpointSlice objects directly, degrade to ServiceImport IPs if they support doing so, or fail". This mesh
// degrades (D-3). The backend's ClusterSetIP leads to `store`, its EndpointSlice to `cart`.
var MeshServiceImportEndpointSliceObjects = suite.ConformanceTest{
	ShortName:   "MeshServiceImportEndpointSliceObjects",
	Description: "A backend is reached by its EndpointSlices or by its ClusterSetIP, as the status of its ServiceImport says",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
		SupportServiceImportUnmanaged,
		SupportEndpointSliceObjects,
	},
	Manifests: []string{"endpoint-slice-objects.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		from, backend, first := client(t, s), in(Namespace, "sliceless"), clusters.First
		says := func(status mcs.EndpointSliceObjectsStatus) {
			first.ChangeImportStatus(t, backend, func(all *mcs.ServiceImportStatus) { all.EndpointSliceObjects = status })
			found, err := first.Import(t.Context(), backend)
			require.NoError(t, err)
			require.Equal(t, status, found.Status.EndpointSliceObjects, "the CRD of ServiceImport must have status.endpointSliceObjects")
		}
		first.CreateImport(t, s, backend)
		vip := first.CreateVIP(t, s, backend, "sliceless-vip", "store")
		first.ChangeImport(t, backend, func(spec *mcs.ServiceImportSpec) { spec.IPs = []string{vip} })

		says(mcs.EndpointSliceObjectsAbsent)
		inForce(t, s, "slices")
		clusterset.Expect(t, s, from, answered(name("slices"), "/", "store-first"))

		says(mcs.EndpointSliceObjectsPresent)
		clusterset.Expect(t, s, from, refused(name("slices"), "/", 503))

		first.CreateEndpointSlice(t, s, in(Namespace, "sliceless-slice"), "cart",
			map[string]string{mcs.LabelServiceName: backend.Name, mcs.LabelSourceCluster: first.ID}, vip)
		clusterset.Expect(t, s, from, answered(name("slices"), "/", "cart-first"))

		says(mcs.EndpointSliceObjectsAbsent)
		clusterset.Expect(t, s, from, answered(name("slices"), "/", "store-first"))
	},
}
