// A small multi-cluster services controller (KEP-1645) for tests: one in each cluster of a ClusterSet, which reads the
// exports of all clusters and writes the imports of its own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	mcsclient "sigs.k8s.io/mcs-api/pkg/client/clientset/versioned"
)

const (
	// Writes of a whole namespace of services must not queue in the client.
	queriesPerSecond, queriesAtOnce = 100, 200
	patience                        = 10 * time.Second
)

func main() {
	name := flag.String("cluster", "", "id of the cluster that is imported into")
	file := flag.String("clusterset", "", "kubeconfig `file` with a context for each cluster of the ClusterSet, named by its id")
	probe := flag.String("probe", ":8080", "`address` of /readyz")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	if err := run(ctx, *name, *file, *probe); err != nil {
		slog.Error("ended", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, name, file, probe string) error {
	contexts, err := clientcmd.LoadFromFile(file)
	if err != nil {
		return err
	}
	if contexts.Contexts[name] == nil {
		return fmt.Errorf("%s: no context %q", file, name)
	}
	var own *home
	var others []*cluster
	for id := range contexts.Contexts {
		config, err := clientcmd.NewNonInteractiveClientConfig(*contexts, id, &clientcmd.ConfigOverrides{}, nil).ClientConfig()
		if id == name {
			// In a pod its ServiceAccount is used, so that the role in the manifest is the one that counts.
			if inside, missing := rest.InClusterConfig(); !errors.Is(missing, rest.ErrNotInCluster) {
				config, err = inside, missing
			}
		}
		if err != nil {
			return fmt.Errorf("cluster %s: %w", id, err)
		}
		config.QPS, config.Burst = queriesPerSecond, queriesAtOnce
		kube, err := kubernetes.NewForConfig(config)
		if err != nil {
			return fmt.Errorf("cluster %s: %w", id, err)
		}
		multicluster, err := mcsclient.NewForConfig(config)
		if err != nil {
			return fmt.Errorf("cluster %s: %w", id, err)
		}
		if id == name {
			own = newHome(id, kube, multicluster)
		} else {
			others = append(others, newCluster(id, kube, multicluster))
		}
	}
	go func() { slog.Error("probe", "error", serveReady(probe, own.synced)) }()
	return newController(own, others, patience).run(ctx)
}

func serveReady(address string, ready func() bool) error {
	http.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !ready() {
			http.Error(w, "caches of the own cluster are not synced", http.StatusServiceUnavailable)
		}
	})
	probe := &http.Server{Addr: address, ReadHeaderTimeout: 5 * time.Second}
	return probe.ListenAndServe()
}
