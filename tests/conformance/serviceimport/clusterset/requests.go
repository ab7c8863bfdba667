package clusterset

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/gateway-api/conformance/utils/echo"
	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/conformance/utils/tlog"
)

// Expect makes a request until answers are as expected several times in a row. Besides what upstream's comparison for meshes
// looks at, path and Host must arrive at the backend as they were sent, or as ExpectedRequest has them.
func Expect(t *testing.T, s *suite.ConformanceTestSuite, from echo.MeshPod, want http.ExpectedResponse) {
	t.Helper()
	config := s.TimeoutConfig
	http.AwaitConvergence(t, config.RequiredConsecutiveSuccesses, config.MaxTimeToConsistency, func(elapsed time.Duration) bool {
		_, got, err := from.CaptureRequestResponseAndCompare(t, want)
		if err != nil {
			return false // it has said why
		}
		if err := compareArrival(t, want, got); err != nil {
			tlog.Logf(t, "not ready yet: %v (after %v)", err, elapsed)
			return false
		}
		return true
	})
}

// ExpectEach is Expect for the cases of a table, each a test of its own.
func ExpectEach(t *testing.T, s *suite.ConformanceTestSuite, from echo.MeshPod, cases []http.ExpectedResponse) {
	for i, want := range cases {
		t.Run(want.GetTestCaseName(i), func(t *testing.T) {
			Expect(t, s, from, want)
		})
	}
}

// A backend shows what arrived at it; an answer of the mesh's own has no Hostname.
func compareArrival(t *testing.T, want http.ExpectedResponse, got echo.Response) error {
	if got.Hostname == "" || strings.EqualFold(want.Request.Protocol, "grpc") {
		return nil
	}
	path := want.Request.Path
	host := want.Request.Headers["Host"]
	if host == "" {
		host = http.CalculateHost(t, want.Request.Host, "http")
	}
	if arrives := want.ExpectedRequest; arrives != nil {
		if arrives.Path != "" {
			path = arrives.Path
		}
		if arrives.Host != "" {
			host = arrives.Host
		}
	}
	if path == "" {
		path = "/"
	}
	if got.URL != path {
		return fmt.Errorf("expected path %q at the backend, got %q", path, got.URL)
	}
	if got.Host != host {
		return fmt.Errorf("expected Host %q at the backend, got %q", host, got.Host)
	}
	return nil
}

// Workload is the name of the Deployment whose pod answered, APP-ORDINAL; empty if none did. The suite goes by the pod's name,
// since not every echo server says which cluster it is in.
func Workload(got echo.Response) string {
	return workload(got.Hostname)
}

// A pod of a Deployment is named DEPLOYMENT-REPLICASET-POD.
func workload(hostname string) string {
	parts := strings.Split(hostname, "-")
	if len(parts) < 3 {
		return hostname
	}
	return strings.Join(parts[:len(parts)-2], "-")
}

// Shares makes a number of requests with one client and counts who answered: workloads by their names, the mesh itself by its
// status codes. It begins once single requests are as expected; where that says nothing about the route, the test has to see first
// that it is in force.
func Shares(t *testing.T, s *suite.ConformanceTestSuite, from echo.MeshPod, want http.ExpectedResponse, count int) Counts {
	t.Helper()
	Expect(t, s, from, want)
	var counts Counts
	Await(t, s.TimeoutConfig.MaxTimeToConsistency, func(context.Context) error {
		answers, err := from.RequestBatch(t, want, count)
		if err != nil {
			return err
		}
		counts = Counts{}
		for _, answer := range answers {
			if who := Workload(answer); who != "" {
				counts[who]++
			} else {
				counts[answer.Code]++
			}
		}
		return nil
	})
	tlog.Logf(t, "%d requests to %s%s: %v", count, want.Request.Host, want.Request.Path, counts)
	return counts
}
