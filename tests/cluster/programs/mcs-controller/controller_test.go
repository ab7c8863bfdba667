package main

import (
	"context"
	"os"
	"reflect"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kubefake "k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	mcs "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
	mcsfake "sigs.k8s.io/mcs-api/pkg/client/clientset/versioned/fake"
)

const soon = 10 * time.Second

func TestMain(m *testing.M) {
	// The fake API server cannot list by watching, and mcs-api's clients are too old to say so.
	os.Setenv("KUBE_FEATURE_WatchListClient", "false")
	os.Exit(m.Run())
}

// fake is a cluster's API server, which gives ClusterIPs and otherwise stores what it is told.
type fake struct {
	kube *kubefake.Clientset
	mcs  *mcsfake.Clientset
}

func newFake() fake {
	made := fake{kubefake.NewClientset(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: key.Namespace}}), mcsfake.NewSimpleClientset()}
	made.kube.PrependReactor("create", "services", func(action clienttesting.Action) (bool, runtime.Object, error) {
		if service := action.(clienttesting.CreateAction).GetObject().(*corev1.Service); service.Spec.IPFamilyPolicy != nil {
			service.Spec.ClusterIPs = vips
			service.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
		}
		return false, nil, nil
	})
	return made
}

// breaks makes every list fail, as of a cluster that cannot be reached.
func (f fake) breaks() {
	broken := func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewServiceUnavailable("cut off")
	}
	f.kube.PrependReactor("list", "*", broken)
	f.mcs.PrependReactor("list", "*", broken)
}

func (f fake) export(t *testing.T, given export) {
	t.Helper()
	_, failed := f.mcs.MulticlusterV1beta1().ServiceExports(key.Namespace).Create(t.Context(), given.export, metav1.CreateOptions{})
	_, failedToo := f.kube.CoreV1().Services(key.Namespace).Create(t.Context(), given.service, metav1.CreateOptions{})
	_, failedThree := f.kube.DiscoveryV1().EndpointSlices(key.Namespace).Create(t.Context(), &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name + "-abcde", Labels: map[string]string{discoveryv1.LabelServiceName: key.Name}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.1.0.1"}}},
	}, metav1.CreateOptions{})
	for _, err := range []error{failed, failedToo, failedThree} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (f fake) unexport(t *testing.T) {
	t.Helper()
	if err := f.mcs.MulticlusterV1beta1().ServiceExports(key.Namespace).Delete(t.Context(), key.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// imported is what a cluster has of the service, if anything.
type imported struct {
	Type     mcs.ServiceImportType
	IPs      []string
	Clusters []mcs.ClusterStatus
	Ready    bool
	Slices   []string
	Derived  bool
}

func (f fake) imported(ctx context.Context) imported {
	var got imported
	if object, err := f.mcs.MulticlusterV1beta1().ServiceImports(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{}); err == nil {
		ready := meta.IsStatusConditionTrue(object.Status.Conditions, string(mcs.ServiceImportConditionReady))
		got = imported{Type: object.Spec.Type, IPs: object.Spec.IPs, Clusters: object.Status.Clusters, Ready: ready}
	}
	slices, _ := f.kube.DiscoveryV1().EndpointSlices(key.Namespace).List(ctx, metav1.ListOptions{LabelSelector: mcs.LabelServiceName})
	for _, slice := range slices.Items {
		got.Slices = append(got.Slices, slice.Name)
	}
	_, err := f.kube.CoreV1().Services(key.Namespace).Get(ctx, derivedName(key), metav1.GetOptions{})
	got.Derived = err == nil
	return got
}

func (f fake) becomes(t *testing.T, want imported) {
	t.Helper()
	got := f.imported(t.Context())
	for end := time.Now().Add(soon); !reflect.DeepEqual(got, want); got = f.imported(t.Context()) {
		if time.Now().After(end) {
			t.Fatalf("imported is %+v, not %+v", got, want)
		}
		// The fake API servers say nothing of their own accord: they are looked at again.
		time.Sleep(5 * time.Millisecond)
	}
}

func runs(t *testing.T, own fake, other fake) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	others := []*cluster{newCluster("west", other.kube, other.mcs)}
	go func() { ended <- newController(newHome("east", own.kube, own.mcs), others, time.Second).run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
}

var (
	vips       = []string{"10.9.9.9", "fd00::9"}
	inEast     = mcs.ClusterStatus{Cluster: "east"}
	inWest     = mcs.ClusterStatus{Cluster: "west"}
	ofBoth     = imported{mcs.ClusterSetIP, vips, []mcs.ClusterStatus{inEast, inWest}, true, []string{"east-cart-abcde", "west-cart-abcde"}, true}
	ofWestOnly = imported{mcs.ClusterSetIP, vips, []mcs.ClusterStatus{inWest}, true, []string{"west-cart-abcde"}, true}
)

func TestAnImportLivesAsLongAsAnExport(t *testing.T) {
	east, west := newFake(), newFake()
	runs(t, east, west)
	west.export(t, exported("west", 1))
	east.becomes(t, ofWestOnly)
	east.export(t, exported("east", 2))
	east.becomes(t, ofBoth)
	east.unexport(t)
	east.becomes(t, ofWestOnly)
	west.unexport(t)
	east.becomes(t, imported{})
	if got := west.imported(t.Context()); !reflect.DeepEqual(got, imported{}) {
		t.Errorf("something was written into the other cluster: %+v", got)
	}
}

func TestTheOldestExportFlipsTheTypeAndTheAddressGoes(t *testing.T) {
	east, west := newFake(), newFake()
	runs(t, east, west)
	east.export(t, exported("east", 1))
	east.becomes(t, imported{mcs.ClusterSetIP, vips, []mcs.ClusterStatus{inEast}, true, []string{"east-cart-abcde"}, true})
	west.export(t, exported("west", 2, headless))
	flipped := ofBoth
	flipped.Type, flipped.IPs, flipped.Derived = mcs.Headless, nil, false
	east.becomes(t, flipped)
	west.unexport(t)
	east.becomes(t, imported{mcs.ClusterSetIP, vips, []mcs.ClusterStatus{inEast}, true, []string{"east-cart-abcde"}, true})
}

func TestWhatIsDeletedOrChangedByHandComesBack(t *testing.T) {
	east, west := newFake(), newFake()
	runs(t, east, west)
	west.export(t, exported("west", 1))
	east.becomes(t, ofWestOnly)
	for _, damage := range []func() error{
		func() error {
			return east.mcs.MulticlusterV1beta1().ServiceImports(key.Namespace).Delete(t.Context(), key.Name, metav1.DeleteOptions{})
		},
		func() error {
			return east.kube.CoreV1().Services(key.Namespace).Delete(t.Context(), derivedName(key), metav1.DeleteOptions{})
		},
		func() error {
			return east.kube.DiscoveryV1().EndpointSlices(key.Namespace).Delete(t.Context(), "west-cart-abcde", metav1.DeleteOptions{})
		},
		func() error {
			object, err := east.mcs.MulticlusterV1beta1().ServiceImports(key.Namespace).Get(t.Context(), key.Name, metav1.GetOptions{})
			if err == nil {
				object.Spec.IPs = []string{"10.0.0.66"}
				_, err = east.mcs.MulticlusterV1beta1().ServiceImports(key.Namespace).Update(t.Context(), object, metav1.UpdateOptions{})
			}
			return err
		},
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		east.becomes(t, ofWestOnly)
	}
}

func TestAClusterThatCannotBeReachedKeepsItsPart(t *testing.T) {
	east, west := newFake(), newFake()
	left := &mcs.ServiceImport{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	setImport(left, merge([]export{exported("west", 1)}))
	left.Spec.IPs, left.Status.Clusters = vips, []mcs.ClusterStatus{inWest}
	slice := importedSlice(key, mcs.ClusterSetIP, "west", &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: "cart-abcde"}})
	stale := importedSlice(key, mcs.ClusterSetIP, "north", &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: "cart-abcde"}})
	for _, object := range []*discoveryv1.EndpointSlice{slice, stale} {
		if err := east.kube.Tracker().Add(object); err != nil {
			t.Fatal(err)
		}
	}
	if err := east.mcs.Tracker().Add(left); err != nil {
		t.Fatal(err)
	}
	west.breaks()
	runs(t, east, west)
	east.export(t, exported("east", 0))
	want := imported{mcs.ClusterSetIP, vips, []mcs.ClusterStatus{inWest}, false, []string{"east-cart-abcde", "west-cart-abcde"}, false}
	east.becomes(t, want)
	object, err := east.mcs.MulticlusterV1beta1().ServiceExports(key.Namespace).Get(t.Context(), key.Name, metav1.GetOptions{})
	if err != nil || !meta.IsStatusConditionTrue(object.Status.Conditions, string(mcs.ServiceExportConditionValid)) {
		t.Errorf("export of the own cluster: %+v, %v", object, err)
	}
}

func TestAnImportOfSomeoneElseIsLeftAlone(t *testing.T) {
	east, west := newFake(), newFake()
	foreign := &mcs.ServiceImport{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: "foreign"}, Spec: mcs.ServiceImportSpec{Type: mcs.Headless}}
	if err := east.mcs.Tracker().Add(foreign); err != nil {
		t.Fatal(err)
	}
	runs(t, east, west)
	west.export(t, exported("west", 1))
	east.becomes(t, ofWestOnly)
	west.unexport(t)
	east.becomes(t, imported{})
	if _, err := east.mcs.MulticlusterV1beta1().ServiceImports(key.Namespace).Get(t.Context(), "foreign", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}
