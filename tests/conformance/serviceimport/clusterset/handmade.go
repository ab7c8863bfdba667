package clusterset

import (
	"context"
	"maps"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/util/retry"
	netutils "k8s.io/utils/net"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	mcs "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
)

// CreateImport makes a ServiceImport without a ClusterSetIP, as a provider would that has none to give yet; it goes with the test.
func (cluster *Cluster) CreateImport(t *testing.T, s *suite.ConformanceTestSuite, name types.NamespacedName) {
	t.Helper()
	object := cluster.emptyImport()
	object.SetNamespace(name.Namespace)
	object.SetName(name.Name)
	spec := mcs.ServiceImportSpec{
		Type:  mcs.ClusterSetIP,
		Ports: []mcs.ServicePort{{Name: "http", Protocol: "TCP", Port: 80}},
	}
	require.NoError(t, setField(object, "spec", &spec))
	cluster.create(t, s, object)
}

// As upstream's applier does it, but that what the garbage collector has taken meanwhile is no failure.
func (cluster *Cluster) create(t *testing.T, s *suite.ConformanceTestSuite, object client.Object) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), s.TimeoutConfig.CreateTimeout)
	defer cancel()
	require.NoError(t, cluster.Client.Create(ctx, object))
	if s.CleanupTestResources {
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), s.TimeoutConfig.DeleteTimeout)
			defer cancel()
			require.NoError(t, client.IgnoreNotFound(cluster.Client.Delete(ctx, object)))
		})
	}
}

// ChangeImport changes the spec of a ServiceImport that the test has made.
func (cluster *Cluster) ChangeImport(t *testing.T, name types.NamespacedName, change func(*mcs.ServiceImportSpec)) {
	t.Helper()
	cluster.changeImport(t, name, func(found *mcs.ServiceImport, object *unstructured.Unstructured) error {
		change(&found.Spec)
		if err := setField(object, "spec", &found.Spec); err != nil {
			return err
		}
		return cluster.Client.Update(t.Context(), object)
	})
}

// ChangeImportStatus changes the status of a ServiceImport that the test has made.
func (cluster *Cluster) ChangeImportStatus(t *testing.T, name types.NamespacedName, change func(*mcs.ServiceImportStatus)) {
	t.Helper()
	cluster.changeImport(t, name, func(found *mcs.ServiceImport, object *unstructured.Unstructured) error {
		change(&found.Status)
		if err := setField(object, "status", &found.Status); err != nil {
			return err
		}
		return cluster.Client.Status().Update(t.Context(), object)
	})
}

func (cluster *Cluster) changeImport(t *testing.T, name types.NamespacedName, write func(*mcs.ServiceImport, *unstructured.Unstructured) error) {
	t.Helper()
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		object := cluster.emptyImport()
		if err := cluster.Client.Get(t.Context(), name, object); err != nil {
			return err
		}
		found := &mcs.ServiceImport{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, found); err != nil {
			return err
		}
		return write(found, object)
	})
	require.NoErrorf(t, err, "changing ServiceImport %s", name)
}

// DeleteImport deletes a ServiceImport that the test has made.
func (cluster *Cluster) DeleteImport(t *testing.T, name types.NamespacedName) {
	t.Helper()
	object := cluster.emptyImport()
	object.SetNamespace(name.Namespace)
	object.SetName(name.Name)
	require.NoError(t, cluster.Client.Delete(t.Context(), object))
}

// CreateVIP makes a Service whose ClusterIP can be given to an import as its ClusterSetIP, and returns that address. As with
// providers that do so, it has no selector and is owned by the import. Its endpoint, for whoever dials it without a route, is
// port 8080 of a pod.
func (cluster *Cluster) CreateVIP(t *testing.T, s *suite.ConformanceTestSuite, of types.NamespacedName, service, app string) string {
	t.Helper()
	owner := cluster.emptyImport()
	require.NoError(t, cluster.Client.Get(t.Context(), of, owner))
	vip := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: of.Namespace,
			Name:      service,
			OwnerReferences: []metav1.OwnerReference{
				{APIVersion: owner.GetAPIVersion(), Kind: owner.GetKind(), Name: owner.GetName(), UID: owner.GetUID()},
			},
		},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080)}}},
	}
	cluster.create(t, s, vip)
	cluster.CreateEndpointSlice(t, s, types.NamespacedName{Namespace: of.Namespace, Name: service}, app,
		map[string]string{discoveryv1.LabelServiceName: service}, vip.Spec.ClusterIP)
	return vip.Spec.ClusterIP
}

// CreateEndpointSlice makes one with port 8080 of a pod of an app in this cluster, in the family of an address.
func (cluster *Cluster) CreateEndpointSlice(
	t *testing.T, s *suite.ConformanceTestSuite, name types.NamespacedName, app string, labels map[string]string, familyOf string,
) {
	t.Helper()
	var pods corev1.PodList
	require.NoError(t, cluster.Client.List(t.Context(), &pods, client.InNamespace(name.Namespace), client.MatchingLabels{"app": app}))
	require.NotEmptyf(t, pods.Items, "pods of %s", app)
	family := discoveryv1.AddressTypeIPv4
	if netutils.IsIPv6String(familyOf) {
		family = discoveryv1.AddressTypeIPv6
	}
	var addresses []string
	for _, ip := range pods.Items[0].Status.PodIPs {
		if netutils.IsIPv6String(ip.IP) == (family == discoveryv1.AddressTypeIPv6) {
			addresses = append(addresses, ip.IP)
		}
	}
	require.Lenf(t, addresses, 1, "pod %s has no address of the family of %s", pods.Items[0].Name, familyOf)
	endpointSlice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name, Labels: maps.Clone(labels)},
		AddressType: family,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: addresses, Conditions: discoveryv1.EndpointConditions{Ready: new(true)}}},
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Protocol: new(corev1.ProtocolTCP), Port: new(int32(8080))}},
	}
	endpointSlice.Labels[discoveryv1.LabelManagedBy] = "serviceimport-conformance"
	cluster.create(t, s, endpointSlice)
}

func setField(object *unstructured.Unstructured, field string, value any) error {
	raw, err := runtime.DefaultUnstructuredConverter.ToUnstructured(value)
	if err != nil {
		return err
	}
	return unstructured.SetNestedField(object.Object, raw, field)
}
