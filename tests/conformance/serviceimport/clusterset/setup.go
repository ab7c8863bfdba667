package clusterset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/conformance/utils/tlog"
)

// Base is what all tests share: manifests for both clusters, for each alone, and one for every frontend.
type Base struct {
	Folder                        fs.FS
	Everywhere, InFirst, InSecond string
	Frontend                      string // a manifest with PLACEHOLDER_FRONTEND
	Namespaces, Frontends         []string
	Exports                       []Export
}

// Setup applies the base and waits until its pods run and its exports are imported into the first cluster.
func (set *ClusterSet) Setup(t *testing.T, s *suite.ConformanceTestSuite, base Base) {
	for _, cluster := range set.clusters() {
		tlog.Logf(t, "Test Setup: base manifests of cluster %s", cluster.ID)
		set.awaitNoLeftovers(t, s, cluster, base.Namespaces)
		set.apply(t, s, cluster, base, base.Everywhere)
		set.apply(t, s, cluster, base, map[string]string{First: base.InFirst, Second: base.InSecond}[cluster.Ordinal])
		for _, frontend := range base.Frontends {
			set.apply(t, s, cluster, base, base.Frontend, "PLACEHOLDER_FRONTEND", frontend)
		}
	}
	for _, cluster := range set.clusters() {
		tlog.Logf(t, "Test Setup: pods of cluster %s", cluster.ID)
		Await(t, s.TimeoutConfig.NamespacesMustBeReady, func(ctx context.Context) error {
			return cluster.unavailable(ctx, base.Namespaces)
		})
	}
	tlog.Logf(t, "Test Setup: ServiceImports in cluster %s", set.First.ID)
	Await(t, set.options.ImportTimeout, func(ctx context.Context) error {
		missing, err := set.missing(ctx, base.Exports)
		if err == nil && len(missing) > 0 {
			err = errors.New(strings.Join(missing, "\n"))
		}
		return err
	})
}

func (set *ClusterSet) apply(t *testing.T, s *suite.ConformanceTestSuite, cluster *Cluster, base Base, manifest string, more ...string) {
	applier := s.Applier
	applier.ManifestFS = []fs.FS{set.Manifests(cluster, base.Folder, more...)}
	applier.MustApplyWithCleanup(t, cluster.Client, s.TimeoutConfig, manifest, s.Cleanup)
}

// Namespaces of a run before go in their own time; nothing can be created in them until they have.
func (set *ClusterSet) awaitNoLeftovers(t *testing.T, s *suite.ConformanceTestSuite, cluster *Cluster, namespaces []string) {
	Await(t, s.TimeoutConfig.NamespacesMustBeReady, func(ctx context.Context) error {
		for _, name := range namespaces {
			var namespace corev1.Namespace
			err := cluster.Client.Get(ctx, client.ObjectKey{Name: name}, &namespace)
			if client.IgnoreNotFound(err) != nil {
				return err
			}
			if err == nil && namespace.DeletionTimestamp != nil {
				return fmt.Errorf("namespace %s of an earlier run is still there", name)
			}
		}
		return nil
	})
}

// Deployments rather than pods, as upstream's MeshNamespacesMustBeReady looks at: a pod that is not there yet is waited for too.
func (cluster *Cluster) unavailable(ctx context.Context, namespaces []string) error {
	var waiting []string
	for _, namespace := range namespaces {
		var deployments appsv1.DeploymentList
		if err := cluster.Client.List(ctx, &deployments, client.InNamespace(namespace)); err != nil {
			return err
		}
		for _, deployment := range deployments.Items {
			status, wanted := deployment.Status, *deployment.Spec.Replicas
			current := status.ObservedGeneration >= deployment.Generation && status.UpdatedReplicas == wanted
			if !current || status.AvailableReplicas != wanted {
				waiting = append(waiting, deployment.Namespace+"/"+deployment.Name)
			}
		}
	}
	if len(waiting) > 0 {
		return fmt.Errorf("Deployments of cluster %s without a ready pod: %s", cluster.ID, strings.Join(waiting, ", "))
	}
	return nil
}

// Await polls a check until it finds nothing wrong; the test ends with what is still wrong after that time.
func Await(t *testing.T, within time.Duration, check func(context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, within, true, func(ctx context.Context) (bool, error) {
		// What was cut off by the end of the time says less than what was wrong before.
		if now := check(ctx); now == nil || ctx.Err() == nil {
			last = now
		}
		return last == nil, nil
	})
	require.NoErrorf(t, err, "after %v: %v", within, last)
}
