// What is written for one multi-cluster service, into the own cluster only, and only where it differs from what is there.
//
// Caches may be behind. A write that they mislead is refused by the API server (conflict, already there) and done again.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	mcs "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
)

func (c *controller) reconcile(ctx context.Context, key types.NamespacedName) error {
	if !c.own.hasNamespace(key.Namespace) {
		return nil // what was in it goes with it
	}
	exports, unknown := c.exports(key)
	imported, _ := c.own.imports.ServiceImports(key.Namespace).Get(key.Name)
	// After a start without some cluster, what that one adds to an import is only in the import itself: so it stays.
	fromUnknown := func(from mcs.ClusterStatus) bool { return unknown.Has(from.Cluster) }
	if imported != nil && slices.ContainsFunc(imported.Status.Clusters, fromUnknown) {
		return errors.Join(c.writeExport(ctx, key, nil), c.writeSlices(ctx, key, imported.Spec.Type, exports, unknown))
	}
	if len(exports) == 0 {
		return errors.Join(c.writeExport(ctx, key, &merged{}), c.remove(ctx, key, imported, unknown))
	}
	service := merge(exports)
	if err := c.writeExport(ctx, key, &service); err != nil {
		return err
	}
	imported, err := c.writeImport(ctx, key, imported, func(object *mcs.ServiceImport) { setImport(object, service) })
	if err != nil {
		return err
	}
	// An address is told when there are endpoints behind it.
	if err := c.writeSlices(ctx, key, service.spec.Type, exports, unknown); err != nil {
		return err
	}
	if imported, err = c.writeAddresses(ctx, key, imported); err != nil {
		return err
	}
	want := imported.DeepCopy()
	setImportStatus(want, service)
	return putStatus(ctx, c.own.mcs.MulticlusterV1beta1().ServiceImports(key.Namespace), imported, want)
}

// exports are all valid ones, and the clusters of which none is known yet.
func (c *controller) exports(key types.NamespacedName) (exports []export, unknown sets.Set[string]) {
	unknown = sets.New[string]()
	for _, cluster := range c.clusters {
		if !cluster.synced() {
			unknown.Insert(cluster.name)
			continue
		}
		if object, service := cluster.export(key); object != nil && validity(service).Status == metav1.ConditionTrue {
			exports = append(exports, export{cluster.name, object, service})
		}
	}
	return exports, unknown
}

// writeExport writes the conditions of the own export, if there is one; without a merged service Conflict stays.
func (c *controller) writeExport(ctx context.Context, key types.NamespacedName, service *merged) error {
	object, exported := c.own.export(key)
	if object == nil {
		return nil
	}
	valid := validity(exported)
	conditions := []metav1.Condition{valid, readiness(valid)}
	if service != nil {
		conditions = append(conditions, agreement(valid, service.conflicts))
	}
	want := object.DeepCopy()
	for _, condition := range conditions {
		condition.ObservedGeneration = object.Generation
		meta.SetStatusCondition(&want.Status.Conditions, condition)
	}
	return putStatus(ctx, c.own.mcs.MulticlusterV1beta1().ServiceExports(key.Namespace), object, want)
}

func (c *controller) writeImport(
	ctx context.Context, key types.NamespacedName, have *mcs.ServiceImport, set func(*mcs.ServiceImport),
) (*mcs.ServiceImport, error) {
	want := &mcs.ServiceImport{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	if have != nil {
		want = have.DeepCopy()
	}
	set(want)
	return put(ctx, c.own.mcs.MulticlusterV1beta1().ServiceImports(key.Namespace), have, want)
}

// writeAddresses gives a ClusterSetIP import the addresses of its derived Service, and takes that from a headless one.
func (c *controller) writeAddresses(
	ctx context.Context, key types.NamespacedName, imported *mcs.ServiceImport,
) (*mcs.ServiceImport, error) {
	services, name := c.own.kube.CoreV1().Services(key.Namespace), derivedName(key)
	have, _ := c.own.services.Services(key.Namespace).Get(name)
	if imported.Spec.Type == mcs.Headless {
		return imported, remove(ctx, services, have)
	}
	want := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: name}}
	if have != nil {
		want = have.DeepCopy()
	}
	setDerived(want, imported)
	derived, err := put(ctx, services, have, want)
	if err != nil {
		return nil, err
	}
	return c.writeImport(ctx, key, imported, func(object *mcs.ServiceImport) {
		object.Spec.IPs, object.Spec.IPFamilies = derived.Spec.ClusterIPs, derived.Spec.IPFamilies
	})
}

// writeSlices imports every slice of the exported Services, and deletes what has no source any more, but for slices of
// clusters of which nothing is known.
func (c *controller) writeSlices(
	ctx context.Context, key types.NamespacedName, kind mcs.ServiceImportType, exports []export, unknown sets.Set[string],
) error {
	wanted := map[string]*discoveryv1.EndpointSlice{}
	for _, cluster := range c.clusters {
		if !slices.ContainsFunc(exports, func(e export) bool { return e.cluster == cluster.name }) {
			continue
		}
		for _, source := range cluster.slicesWith(key.Namespace, labels.Set{discoveryv1.LabelServiceName: key.Name}) {
			if isSource(source) {
				made := importedSlice(key, kind, cluster.name, source)
				wanted[made.Name] = made
			}
		}
	}
	var failed error
	writer := c.own.kube.DiscoveryV1().EndpointSlices(key.Namespace)
	mine := labels.Set{mcs.LabelServiceName: key.Name, discoveryv1.LabelManagedBy: controllerName}
	for _, have := range c.own.slicesWith(key.Namespace, mine) {
		made := wanted[have.Name]
		delete(wanted, have.Name)
		switch {
		case made != nil && made.AddressType == have.AddressType:
			want := have.DeepCopy()
			want.Labels, want.Endpoints, want.Ports = made.Labels, made.Endpoints, made.Ports
			_, err := put(ctx, writer, have, want)
			failed = errors.Join(failed, err)
		case !unknown.Has(have.Labels[mcs.LabelSourceCluster]):
			// One of another address type is made anew at the event of this deletion: the type cannot change.
			failed = errors.Join(failed, remove(ctx, writer, have))
		}
	}
	for _, made := range wanted {
		_, err := put(ctx, writer, nil, made)
		failed = errors.Join(failed, err)
	}
	return failed
}

// remove takes away all that this controller made for a service that no cluster exports any more.
func (c *controller) remove(ctx context.Context, key types.NamespacedName, imported *mcs.ServiceImport, unknown sets.Set[string]) error {
	derived, _ := c.own.services.Services(key.Namespace).Get(derivedName(key))
	if imported != nil && imported.Labels[managedByLabel] != controllerName {
		imported = nil
	}
	return errors.Join(
		c.writeSlices(ctx, key, mcs.ClusterSetIP, nil, unknown),
		remove(ctx, c.own.kube.CoreV1().Services(key.Namespace), derived),
		remove(ctx, c.own.mcs.MulticlusterV1beta1().ServiceImports(key.Namespace), imported),
	)
}

// written is an object as a pointer, nil where it is not there.
type written interface {
	comparable
	metav1.Object
}

// writer is what the typed clients have in common.
type writer[T written] interface {
	Create(context.Context, T, metav1.CreateOptions) (T, error)
	Update(context.Context, T, metav1.UpdateOptions) (T, error)
	Delete(context.Context, string, metav1.DeleteOptions) error
}

type statusWriter[T written] interface {
	UpdateStatus(context.Context, T, metav1.UpdateOptions) (T, error)
}

func put[T written](ctx context.Context, to writer[T], have, want T) (T, error) {
	var absent T
	if have == absent {
		say("create", want)
		return to.Create(ctx, want, metav1.CreateOptions{})
	}
	if equality.Semantic.DeepEqual(have, want) {
		return have, nil
	}
	say("update", want)
	return to.Update(ctx, want, metav1.UpdateOptions{})
}

func putStatus[T written](ctx context.Context, to statusWriter[T], have, want T) error {
	if equality.Semantic.DeepEqual(have, want) {
		return nil
	}
	_, err := to.UpdateStatus(ctx, want, metav1.UpdateOptions{})
	return err
}

func remove[T written](ctx context.Context, from writer[T], have T) error {
	var absent T
	if have == absent || have.GetDeletionTimestamp() != nil {
		return nil
	}
	say("delete", have)
	err := from.Delete(ctx, have.GetName(), *metav1.NewPreconditionDeleteOptions(string(have.GetUID())))
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func say(verb string, object metav1.Object) {
	slog.Info(verb, "kind", fmt.Sprintf("%T", object), "namespace", object.GetNamespace(), "name", object.GetName())
}
