// Which multi-cluster services an event touches, and when each of them is looked at again.
package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	mcs "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
)

const (
	workers                = 4
	backoffMin, backoffMax = 50 * time.Millisecond, 10 * time.Second
	reconcileMax           = 30 * time.Second
)

// controller makes the own cluster have what all clusters export, one multi-cluster service at a time.
type controller struct {
	own      *home
	clusters []*cluster    // the own one among them
	patience time.Duration // with caches of other clusters, before the work begins without them
	queue    workqueue.TypedRateLimitingInterface[types.NamespacedName]
}

func newController(own *home, others []*cluster, patience time.Duration) *controller {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](backoffMin, backoffMax)
	return &controller{own, append([]*cluster{own.cluster}, others...), patience, workqueue.NewTypedRateLimitingQueue(limiter)}
}

func (c *controller) run(ctx context.Context) error {
	for _, cluster := range c.clusters {
		if err := cluster.watch(ctx, c.enqueue); err != nil {
			return err
		}
	}
	cache.WaitForCacheSync(ctx.Done(), c.own.synced)
	// A first look at half of the ClusterSet is avoided, but a cluster that is not there stops nothing.
	patient, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	var running sync.WaitGroup
	for _, cluster := range c.clusters {
		if !cache.WaitForCacheSync(patient.Done(), cluster.synced) {
			slog.Warn("not reached yet", "cluster", cluster.name)
		}
		running.Go(func() { c.welcome(ctx, cluster) })
	}
	for range workers {
		running.Go(func() { c.work(ctx) })
	}
	<-ctx.Done()
	c.queue.ShutDown()
	running.Wait()
	return nil
}

// welcome looks at every import again once a cluster is known: what it exports no more, no event tells.
func (c *controller) welcome(ctx context.Context, cluster *cluster) {
	if !cache.WaitForCacheSync(ctx.Done(), cluster.synced) {
		return
	}
	slog.Info("synced", "cluster", cluster.name)
	imports, _ := c.own.imports.List(labels.Everything())
	for _, object := range imports {
		c.enqueue(object)
	}
}

func (c *controller) work(ctx context.Context) {
	for {
		key, ended := c.queue.Get()
		if ended {
			return
		}
		limited, cancel := context.WithTimeout(ctx, reconcileMax)
		if err := c.reconcile(limited, key); err != nil {
			level := slog.LevelWarn
			if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
				level = slog.LevelDebug // the cache was behind
			}
			slog.Log(ctx, level, "tried again later", "service", key, "error", err)
			c.queue.AddRateLimited(key)
		} else {
			c.queue.Forget(key)
		}
		cancel()
		c.queue.Done(key)
	}
}

func (c *controller) enqueue(object any) {
	for _, key := range c.keys(object) {
		c.queue.Add(key)
	}
}

// keys are the multi-cluster services that an object may have a part in, in whichever cluster it is.
func (c *controller) keys(object any) []types.NamespacedName {
	var keys []types.NamespacedName
	add := func(namespace, name string) {
		keys = append(keys, types.NamespacedName{Namespace: namespace, Name: name})
	}
	switch object := object.(type) {
	case *corev1.Namespace:
		for _, cluster := range c.clusters {
			exports, _ := cluster.exports.ServiceExports(object.Name).List(labels.Everything())
			for _, export := range exports {
				add(export.Namespace, export.Name)
			}
		}
	case metav1.Object:
		// Slices and the derived Service tell in a label whose they are.
		add(object.GetNamespace(), object.GetName())
		for _, label := range []string{mcs.LabelServiceName, discoveryv1.LabelServiceName} {
			if name, labelled := object.GetLabels()[label]; labelled {
				add(object.GetNamespace(), name)
			}
		}
	}
	return keys
}
