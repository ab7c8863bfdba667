package clusterset

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
	"sigs.k8s.io/gateway-api/conformance/utils/echo"
	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/conformance/utils/tlog"
)

// Failed stands for a call that ended in an error whose code the client does not say.
const Failed = "failed"

var (
	// What a client says of each call: the pod that answered, and the code. Some clients do not know the latter line and end with
	// the first failed call, of which grpc-go says in words what its code is.
	outcome   = regexp.MustCompile(`(?m)^\[(\d+)(?: body)?\] (Hostname|GrpcStatus)=(\S+)`)
	errorText = regexp.MustCompile(`rpc error: code = (\w+)`)
)

// Calls makes gRPC calls on one connection and counts who answered: workloads by their names, or the code of an error. Upstream's
// helper for it takes a failed call for a failed client. Arguments are the client's: "-H", "name:value".
func Calls(t *testing.T, s *suite.ConformanceTestSuite, from echo.MeshPod, address string, count int, arguments ...string) Counts {
	t.Helper()
	var counts Counts
	Await(t, s.TimeoutConfig.MaxTimeToConsistency, func(ctx context.Context) (err error) {
		counts, err = callsOnce(ctx, s, from, address, count, arguments)
		return err
	})
	tlog.Logf(t, "%d calls to %s: %v", count, address, counts)
	return counts
}

// ExpectCalls makes single calls until they end in the same way, given by a workload, an app or a code, several times in a row.
// A client that does not say the code of an error is believed that it was the wanted one.
func ExpectCalls(t *testing.T, s *suite.ConformanceTestSuite, from echo.MeshPod, address, want string, arguments ...string) {
	t.Helper()
	config := s.TimeoutConfig
	isCode := codeNames[want]
	http.AwaitConvergence(t, config.RequiredConsecutiveSuccesses, config.MaxTimeToConsistency, func(elapsed time.Duration) bool {
		counts, err := callsOnce(t.Context(), s, from, address, 1, arguments)
		if err != nil || counts.Of(want) != 1 && (!isCode || counts[Failed] != 1) {
			tlog.Logf(t, "call to %s: expected %s, got %v %v (after %v)", address, want, counts, err, elapsed)
			return false
		}
		return true
	})
}

// Believe takes failed calls whose code the client did not say for ones that ended with this code.
func (counts Counts) Believe(code codes.Code) Counts {
	if unsaid := counts[Failed]; unsaid > 0 {
		delete(counts, Failed)
		counts[code.String()] += unsaid
	}
	return counts
}

var codeNames = func() map[string]bool {
	names := map[string]bool{}
	for code := codes.OK; code <= codes.Unauthenticated; code++ {
		names[code.String()] = true
	}
	return names
}()

func callsOnce(
	ctx context.Context, s *suite.ConformanceTestSuite, from echo.MeshPod, address string, count int, arguments []string,
) (Counts, error) {
	command := append([]string{"client", "grpc://" + address, "--count=" + strconv.Itoa(count)}, arguments...)
	output, failure, err := run(ctx, s, from, command...)
	if err != nil {
		return nil, err
	}
	counts := countCalls(output)
	if counts.total() == count {
		return counts, nil
	}
	if count == 1 {
		if !failure {
			return nil, fmt.Errorf("client says nothing of its call: %q", output)
		}
		if code := errorText.FindStringSubmatch(output); code != nil {
			return Counts{code[1]: 1}, nil
		}
		return Counts{Failed: 1}, nil
	}
	// This client ends with the first call that fails: single ones show as much, if they are enough for both kinds of answers.
	counts = Counts{}
	for range min(count, SpreadCount) {
		one, err := callsOnce(ctx, s, from, address, 1, arguments)
		if err != nil {
			return nil, err
		}
		for who := range one {
			counts[who]++
		}
	}
	return counts, nil
}

func countCalls(output string) Counts {
	who := map[string]string{}
	for _, line := range outcome.FindAllStringSubmatch(output, -1) {
		index, field, value := line[1], line[2], line[3]
		if field == "Hostname" {
			who[index] = workload(value)
		} else if number, err := strconv.ParseUint(value, 10, 32); err == nil && codes.Code(number) != codes.OK {
			who[index] = codes.Code(number).String()
		}
	}
	counts := Counts{}
	for _, name := range who {
		counts[name]++
	}
	return counts
}

// run executes a command in the echo container of a pod: all that it writes, and whether it ended as a failure.
func run(ctx context.Context, s *suite.ConformanceTestSuite, in echo.MeshPod, command ...string) (string, bool, error) {
	request := s.Clientset.CoreV1().RESTClient().Post().Resource("pods").Namespace(in.Namespace).Name(in.Name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: "echo", Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	executor, err := remotecommand.NewSPDYExecutor(s.RestConfig, "POST", request.URL())
	if err != nil {
		return "", false, err
	}
	var stdout, stderr bytes.Buffer
	err = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &stdout, Stderr: &stderr})
	output := stdout.String() + "\n\n" + stderr.String()
	if exit := (exec.CodeExitError{}); errors.As(err, &exit) {
		return output, true, nil
	}
	return output, false, err
}
