// The caches of one cluster's objects.
package main

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	mcs "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
	mcsclient "sigs.k8s.io/mcs-api/pkg/client/clientset/versioned"
	mcsinformers "sigs.k8s.io/mcs-api/pkg/client/informers/externalversions"
	mcslisters "sigs.k8s.io/mcs-api/pkg/client/listers/apis/v1beta1"
)

// cluster is one of the ClusterSet's, of which only caches are read. Before they are synced nothing is known of it; when
// it cannot be reached any more, they keep what was known last.
type cluster struct {
	name      string
	services  corelisters.ServiceLister
	slices    discoverylisters.EndpointSliceLister
	exports   mcslisters.ServiceExportLister
	informers []cache.SharedIndexInformer
}

// home is the cluster that a controller imports into, the only one that it writes to.
type home struct {
	*cluster
	kube       kubernetes.Interface
	mcs        mcsclient.Interface
	namespaces corelisters.NamespaceLister
	imports    mcslisters.ServiceImportLister
}

func newCluster(name string, kube kubernetes.Interface, multicluster mcsclient.Interface) *cluster {
	core := informers.NewSharedInformerFactory(kube, 0)
	services, slices := core.Core().V1().Services(), core.Discovery().V1().EndpointSlices()
	exports := mcsinformers.NewSharedInformerFactory(multicluster, 0).Multicluster().V1beta1().ServiceExports()
	return &cluster{
		name: name, services: services.Lister(), slices: slices.Lister(), exports: exports.Lister(),
		informers: []cache.SharedIndexInformer{services.Informer(), slices.Informer(), exports.Informer()},
	}
}

func newHome(name string, kube kubernetes.Interface, multicluster mcsclient.Interface) *home {
	read := newCluster(name, kube, multicluster)
	namespaces := informers.NewSharedInformerFactory(kube, 0).Core().V1().Namespaces()
	imports := mcsinformers.NewSharedInformerFactory(multicluster, 0).Multicluster().V1beta1().ServiceImports()
	read.informers = append(read.informers, namespaces.Informer(), imports.Informer())
	return &home{cluster: read, kube: kube, mcs: multicluster, namespaces: namespaces.Lister(), imports: imports.Lister()}
}

// watch calls back with each object before and after it changed, until the context ends.
func (c *cluster) watch(ctx context.Context, changed func(object any)) error {
	for _, informer := range c.informers {
		_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    changed,
			UpdateFunc: func(before, after any) { changed(before); changed(after) },
			DeleteFunc: func(object any) {
				if last, missed := object.(cache.DeletedFinalStateUnknown); missed {
					object = last.Obj
				}
				changed(object)
			},
		})
		if err != nil {
			return err
		}
		go informer.RunWithContext(ctx)
	}
	return nil
}

func (c *cluster) synced() bool {
	for _, informer := range c.informers {
		if !informer.HasSynced() {
			return false
		}
	}
	return true
}

// export is this cluster's ServiceExport and the Service that it names; either is nil where it is not there.
func (c *cluster) export(key types.NamespacedName) (*mcs.ServiceExport, *corev1.Service) {
	// The only error of a cache is that an object is not in it.
	export, _ := c.exports.ServiceExports(key.Namespace).Get(key.Name)
	service, _ := c.services.Services(key.Namespace).Get(key.Name)
	return export, service
}

func (c *cluster) slicesWith(namespace string, wanted labels.Set) []*discoveryv1.EndpointSlice {
	slices, _ := c.slices.EndpointSlices(namespace).List(labels.SelectorFromSet(wanted))
	return slices
}

// hasNamespace is false for one that is being deleted, in which nothing can be created any more.
func (h *home) hasNamespace(name string) bool {
	namespace, err := h.namespaces.Get(name)
	return err == nil && namespace.DeletionTimestamp == nil
}
