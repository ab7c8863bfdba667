package serviceimport

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/echo"
	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"

	"isthmus.dev/tests/conformance/serviceimport/clusterset"
)

// The pod that requests are made from, unless a test is about another namespace.
func client(t *testing.T, s *suite.ConformanceTestSuite) echo.MeshPod {
	t.Helper()
	return echo.ConnectToAppInNamespace(t, s, ClientApp, Namespace)
}

// name is that of a ServiceImport of the suite's namespace in the ClusterSet's DNS.
func name(service string) string {
	return clusters.Name(service, Namespace)
}

// answered is a GET that a workload ("cart-first"), or an app in any cluster ("cart"), answers.
func answered(host, path, by string) http.ExpectedResponse {
	return http.ExpectedResponse{
		Request:   http.Request{Host: host, Path: path},
		Response:  http.Response{StatusCodes: []int{200}},
		Backend:   by,
		Namespace: Namespace,
	}
}

// refused is a GET that the mesh answers itself.
func refused(host, path string, status int) http.ExpectedResponse {
	return http.ExpectedResponse{
		Request:  http.Request{Host: host, Path: path},
		Response: http.Response{StatusCodes: []int{status}},
	}
}

// withHeader asks for a header with exactly this value on the request that arrives.
func withHeader(want http.ExpectedResponse, header, value string) http.ExpectedResponse {
	want.ExpectedRequest = &http.ExpectedRequest{Request: http.Request{Headers: map[string]string{header: value}}}
	return want
}

// withoutHeader asks for a request that arrives without a header.
func withoutHeader(want http.ExpectedResponse, header string) http.ExpectedResponse {
	want.ExpectedRequest = &http.ExpectedRequest{AbsentHeaders: []string{header}}
	return want
}

// withHost sends a Host that is not what is dialled.
func withHost(want http.ExpectedResponse, host string) http.ExpectedResponse {
	want.Request.Headers = map[string]string{"Host": host}
	return want
}

// called names a case where upstream's own words would not say what it is about.
func called(caseName string, want http.ExpectedResponse) http.ExpectedResponse {
	want.TestCaseName = caseName
	return want
}

// inForce waits until routes of the suite's namespace are accepted, and their backends found.
func inForce(t *testing.T, s *suite.ConformanceTestSuite, routes ...string) {
	t.Helper()
	mustHave(t, s, routes, clusterset.Accepted(), clusterset.ResolvedRefs())
}

func mustHave(t *testing.T, s *suite.ConformanceTestSuite, routes []string, conditions ...metav1.Condition) {
	t.Helper()
	for _, route := range routes {
		clusterset.HTTPRouteMustHave(t, s, in(Namespace, route), conditions...)
	}
}
