package serviceimport

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/gateway-api/conformance/utils/kubernetes"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

func init() {
	register(MeshServiceImportLifecycle)
}

// KEP-1645: a ServiceImport exists while some cluster exports its Service; its ClusterSetIP is consistent for its life, so that
// another life may bring another one. A route cannot be accepted for a parent that does not exist (RouteStatus.parents), and each
// change must be followed: "should update the entry as appropriate when the route or gateway is modified".
var MeshServiceImportLifecycle = suite.ConformanceTest{
	ShortName:   "MeshServiceImportLifecycle",
	Description: "A route takes effect when its ServiceImport comes, is not accepted when that goes, and again when it comes back",
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
		SupportMeshServiceImport,
		SupportMeshServiceImportClusterSetIPMatching,
		SupportMeshServiceImportLifecycle,
	},
	Manifests: []string{"lifecycle.yaml"},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		from, parent := client(t, s), in(Namespace, "lifecycle")
		t.Run("before the first export", func(t *testing.T) {
			kubernetes.HTTPRouteMustHaveNoAcceptedParents(t, s.Client, s.TimeoutConfig, in(Namespace, "lifecycle"))
		})
		for _, life := range []string{"first life", "second life"} {
			s.Applier.MustApplyWithCleanup(t, s.Client, s.TimeoutConfig, "lifecycle-export.yaml", s.CleanupTestResources)
			t.Run(life, func(t *testing.T) {
				var vip string
				clusterset.Await(t, clusters.ImportTimeout(), func(ctx context.Context) error {
					found, err := clusters.First.Import(ctx, parent)
					if err == nil && len(found.Spec.IPs) == 0 {
						err = errors.New("it has no ClusterSetIP")
					}
					if err == nil {
						vip = found.Spec.IPs[0]
					}
					return err
				})
				inForce(t, s, "lifecycle")
				// Not by name: the DNS may remember for a while what was before.
				clusterset.Expect(t, s, from, answered(net.JoinHostPort(vip, "80"), "/", "cart"))
			})
			t.Run(life+" is over", func(t *testing.T) {
				require.NoError(t, clusters.First.Unexport(t.Context(), parent))
				clusterset.Await(t, clusters.ImportTimeout(), func(ctx context.Context) error {
					return clusters.First.NoImport(ctx, parent)
				})
				kubernetes.HTTPRouteMustHaveNoAcceptedParents(t, s.Client, s.TimeoutConfig, in(Namespace, "lifecycle"))
			})
		}
	},
}
