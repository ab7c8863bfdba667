package clusterset

import (
	"maps"
	"testing"
)

func TestCallsAreCountedByWhoEndedThem(t *testing.T) {
	output := "[0] GrpcStatus=0 OK\n[0] Latency=1ms\n[0 body] StatusCode=200\n[0 body] Hostname=cart-first-6d4cf56db6-x2x7p\n\n" +
		"[1] GrpcStatus=14 UNAVAILABLE\n[2 body] Hostname=cart-second-77d4cf56db-aaaaa\n[3] GrpcStatus=12 UNIMPLEMENTED\n\n\n"
	want := Counts{"cart-first": 1, "Unavailable": 1, "cart-second": 1, "Unimplemented": 1}
	if got := countCalls(output); !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if !codeNames["Unavailable"] || codeNames["cart"] {
		t.Errorf("%v", codeNames)
	}
}
