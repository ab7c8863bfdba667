package main

import (
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	mcs "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
)

var key = types.NamespacedName{Namespace: "shop", Name: "cart"}

// exported is an export that is as many minutes old as it says, with http on port 80 unless changed.
func exported(cluster string, age int, changes ...func(*mcs.ServiceExport, *corev1.Service)) export {
	object := metav1.ObjectMeta{
		Namespace: key.Namespace, Name: key.Name,
		CreationTimestamp: metav1.NewTime(time.Date(2026, 1, 1, 0, -age, 0, 0, time.UTC)),
	}
	made := export{cluster, &mcs.ServiceExport{ObjectMeta: object}, &corev1.Service{ObjectMeta: object}}
	made.service.Spec = corev1.ServiceSpec{
		Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.0.0.1", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
		Ports:           []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}},
		SessionAffinity: corev1.ServiceAffinityNone, InternalTrafficPolicy: new(corev1.ServiceInternalTrafficPolicyCluster),
	}
	for _, change := range changes {
		change(made.export, made.service)
	}
	return made
}

// ports replaces the ports by such as `http:80` and `dns:53/UDP`.
func ports(texts ...string) func(*mcs.ServiceExport, *corev1.Service) {
	return func(_ *mcs.ServiceExport, service *corev1.Service) {
		service.Spec.Ports = nil
		for _, text := range texts {
			name, rest, _ := strings.Cut(text, ":")
			number, protocol, _ := strings.Cut(rest, "/")
			port := corev1.ServicePort{Name: name, Protocol: corev1.Protocol(protocol)}
			for _, digit := range number {
				port.Port = port.Port*10 + digit - '0'
			}
			service.Spec.Ports = append(service.Spec.Ports, port)
		}
	}
}

func headless(_ *mcs.ServiceExport, service *corev1.Service) {
	service.Spec.ClusterIP = corev1.ClusterIPNone
}

func TestPortsAreTheUnionAndTheOldestExportHolds(t *testing.T) {
	for _, given := range []struct {
		name, conflict string
		exports        []export
		want           string
	}{
		{"alone", "", []export{exported("east", 0, ports("http:80", "dns:53/UDP", "dns-tcp:53"))}, "http:80/TCP dns:53/UDP dns-tcp:53/TCP"},
		{"the same in another order", "", []export{exported("east", 2, ports("a:1", "b:2")), exported("west", 1, ports("b:2", "a:1"))}, "a:1/TCP b:2/TCP"},
		{"more in each", "PortConflict", []export{exported("east", 1, ports("a:1", "b:2")), exported("west", 2, ports("b:2", "c:3"))}, "b:2/TCP c:3/TCP a:1/TCP"},
		{"one name, two numbers", "PortConflict", []export{exported("east", 1, ports("http:80")), exported("west", 2, ports("http:8080"))}, "http:8080/TCP"},
		{"one number, two names", "PortConflict", []export{exported("east", 2, ports("http:80")), exported("west", 1, ports("web:80"))}, "http:80/TCP"},
		{"one number, two protocols", "PortConflict", []export{exported("east", 2, ports("dns:53/UDP")), exported("west", 1, ports("dns-tcp:53"))}, "dns:53/UDP dns-tcp:53/TCP"},
		{"no name beside a name", "PortConflict", []export{exported("east", 2, ports(":80")), exported("west", 1, ports("alt:8080"))}, ":80/TCP"},
		{"of one second: by cluster", "PortConflict", []export{exported("west", 1, ports("http:8080")), exported("east", 1, ports("http:80"))}, "http:80/TCP"},
		{"headless without ports", "", []export{exported("east", 1, ports(), headless)}, ""},
	} {
		got := merge(given.exports)
		var texts []string
		for _, port := range got.spec.Ports {
			texts = append(texts, port.Name+":"+strconv.Itoa(int(port.Port))+"/"+string(port.Protocol))
		}
		if text := strings.Join(texts, " "); text != given.want || strings.Join(got.conflicts, ",") != given.conflict || got.spec.Ports == nil {
			t.Errorf("%s: %q and conflicts %v, not %q and %q", given.name, text, got.conflicts, given.want, given.conflict)
		}
	}
}

func TestEachPropertyIsThatOfTheOldestAndHasItsConflict(t *testing.T) {
	for reason, change := range map[string]func(*mcs.ServiceExport, *corev1.Service){
		"":             func(*mcs.ServiceExport, *corev1.Service) {},
		"TypeConflict": headless,
		"SessionAffinityConflict,SessionAffinityConfigConflict": func(_ *mcs.ServiceExport, service *corev1.Service) {
			service.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
			service.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(int32(10))}}
		},
		"LabelsConflict": func(object *mcs.ServiceExport, _ *corev1.Service) {
			object.Spec.ExportedLabels = map[string]string{"a": "b"}
		},
		"AnnotationsConflict": func(object *mcs.ServiceExport, _ *corev1.Service) {
			object.Spec.ExportedAnnotations = map[string]string{"a": "b"}
		},
		"InternalTrafficPolicyConflict": func(_ *mcs.ServiceExport, service *corev1.Service) {
			service.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal)
		},
		"TrafficDistributionConflict": func(_ *mcs.ServiceExport, service *corev1.Service) {
			service.Spec.TrafficDistribution = new(corev1.ServiceTrafficDistributionPreferClose)
		},
		"IPFamilyConflict": func(_ *mcs.ServiceExport, service *corev1.Service) {
			service.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol}
		},
	} {
		alone := merge([]export{exported("east", 2, change)})
		got := merge([]export{exported("west", 1), exported("east", 2, change)})
		if text := strings.Join(got.conflicts, ","); text != reason || len(alone.conflicts) > 0 {
			t.Errorf("conflicts %q, not %q; alone %v", text, reason, alone.conflicts)
		}
		got.conflicts, got.clusters, alone.clusters = nil, nil, nil
		if !reflect.DeepEqual(got, alone) {
			t.Errorf("%s: %+v is not that of the oldest, %+v", reason, got, alone)
		}
	}
}

func TestConditionsOfAnExport(t *testing.T) {
	external := &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName}}
	for _, given := range []struct {
		service   *corev1.Service
		conflicts []string
		want      string
	}{
		{nil, []string{"TypeConflict"}, "Valid=False NoService, Ready=False Pending, Conflict=False NoConflicts"},
		{external, nil, "Valid=False InvalidServiceType, Ready=False Pending, Conflict=False NoConflicts"},
		{exported("east", 1).service, nil, "Valid=True Valid, Ready=True Ready, Conflict=False NoConflicts"},
		{exported("east", 1).service, []string{"PortConflict", "TypeConflict"}, "Valid=True Valid, Ready=True Ready, Conflict=True PortConflict,TypeConflict"},
	} {
		valid := validity(given.service)
		var texts []string
		for _, condition := range []metav1.Condition{valid, readiness(valid), agreement(valid, given.conflicts)} {
			texts = append(texts, condition.Type+"="+string(condition.Status)+" "+condition.Reason)
		}
		if got := strings.Join(texts, ", "); got != given.want {
			t.Errorf("%q, not %q", got, given.want)
		}
	}
}

func TestAnImportedSliceKeepsWhatHasAMeaningElsewhere(t *testing.T) {
	source := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "cart-abcde", Labels: map[string]string{discoveryv1.LabelServiceName: "cart"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080))}},
		Endpoints: []discoveryv1.Endpoint{{
			Addresses: []string{"10.0.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: new(false), Terminating: new(true)},
			Hostname: new("cart-0"), NodeName: new("node"), Zone: new("east-1"),
			TargetRef: &corev1.ObjectReference{Name: "pod"}, Hints: &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "east-1"}}},
		}},
	}
	got := importedSlice(key, mcs.ClusterSetIP, "east", source)
	if !isSource(source) || isSource(got) {
		t.Error("a slice must be imported once, and never again")
	}
	if got.Name != "east-cart-abcde" || got.Labels[discoveryv1.LabelServiceName] != derivedName(key) || got.Labels[mcs.LabelSourceCluster] != "east" {
		t.Errorf("metadata: %+v", got.ObjectMeta)
	}
	want := source.DeepCopy().Endpoints
	want[0].TargetRef, want[0].Hints = nil, nil
	if !reflect.DeepEqual(got.Endpoints, want) || !reflect.DeepEqual(got.Ports, source.Ports) {
		t.Errorf("endpoints %+v, ports %+v", got.Endpoints, got.Ports)
	}
	if name, ok := importedSlice(key, mcs.Headless, "east", source).Labels[discoveryv1.LabelServiceName]; ok {
		t.Errorf("a headless import has no derived Service, but the slice names %q", name)
	}
}

func TestNames(t *testing.T) {
	if got := derivedName(types.NamespacedName{Namespace: "ns", Name: "name"}); got != "derived-pd6k8ot52u" {
		t.Errorf("derived Service: %s", got)
	}
	long := strings.Repeat("a", nameMax)
	one, other := sliceName("east", long+"1"), sliceName("east", long+"2")
	if len(one) != nameMax || one == other || one != sliceName("east", long+"1") {
		t.Errorf("%q and %q", one, other)
	}
}
