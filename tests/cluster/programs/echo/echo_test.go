package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"
)

// first takes a key's first value with a regex that has no anchor, as the conformance suite does.
func first(text, key string) string {
	if match := regexp.MustCompile(key + "=(.*)").FindStringSubmatch(text); match != nil {
		return match[1]
	}
	return ""
}

func blocks(text string) []string {
	return strings.Split(strings.TrimSuffix(text, "\n\n"), "\n\n")
}

// addresses are those of one server on loopback that ends with the test.
type addresses struct{ http, https, grpc, tcp, udp string }

func start(t *testing.T) addresses {
	t.Helper()
	listen := func() net.Listener {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return listener
	}
	plain, secure, rpc, tcp := listen(), listen(), listen(), listen()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := loadCertificate("missing.crt", "missing.key")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- all(ctx, []serve{serveHTTP(plain), serveHTTPS(secure, certificate), serveGRPC(rpc), serveTCP(tcp), serveUDP(udp)})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return addresses{plain.Addr().String(), secure.Addr().String(), rpc.Addr().String(), tcp.Addr().String(), udp.LocalAddr().String()}
}

func ask(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	if err := client(t.Context(), args, &out); err != nil {
		t.Fatalf("client %q: %v\n%s", args, err, out.String())
	}
	return out.String()
}

func TestEachSchemeIsAnsweredInTheSuitesText(t *testing.T) {
	t.Setenv("VERSION", "v1")
	t.Setenv("CLUSTER", "east")
	t.Setenv("NAMESPACE", "shop")
	t.Setenv("POD_IP", "10.0.0.1")
	at := start(t)
	common := map[string]string{"StatusCode": "200", "ServiceVersion": "v1", "Cluster": "east", "Namespace": "shop", "IP": "127.0.0.1", "PodIP": "10.0.0.1"}
	for _, asked := range []struct {
		args []string
		want map[string]string
	}{
		{
			[]string{"http://" + at.http + "/a?b=Host=c", "--method=POST", "-H", "Host:shop.example", "-H", "X-One:1"},
			map[string]string{"Method": "POST", "Host": "shop.example", "URL": "/a?b=Host=c", "Proto": "HTTP/1.1", "RequestHeader=X-One": ""},
		},
		{[]string{"http://" + at.http, "--http2"}, map[string]string{"Proto": "HTTP/2.0", "Method": "GET", "URL": "/"}},
		{[]string{"--keep-alive", "http://" + at.http + "/?header=X-Set:yes&delay=1ms"}, map[string]string{"ResponseHeader": "Content-Length"}},
		{[]string{"https://" + at.https, "-k", "--server-name", "shop.example"}, map[string]string{"Proto": "HTTP/1.1", "ServerName": "shop.example"}},
		{[]string{"https://" + at.https, "-k", "--http2"}, map[string]string{"Proto": "HTTP/2.0", "Alpn": "h2"}},
		{
			[]string{"grpc://" + at.grpc, "-H", "x-one:1"},
			map[string]string{"GrpcStatus": "0 OK", "Proto": "GRPC", "Method": echoMethod, "Host": at.grpc, "Echo": greeting},
		},
		{[]string{"grpc://" + at.grpc + "/shop.Cart/Add", "-H", "host:cart"}, map[string]string{"Method": "/shop.Cart/Add", "Host": "cart"}},
		{[]string{"tcp://" + at.tcp}, map[string]string{"Proto": "TCP", "Echo": greeting}},
		{[]string{"udp://" + at.udp + "?hello"}, map[string]string{"Proto": "UDP", "Echo": "hello"}},
	} {
		text := ask(t, asked.args...)
		for _, want := range []map[string]string{common, asked.want} {
			for key, value := range want {
				if got := first(text, key); !strings.HasPrefix(got, value) {
					t.Errorf("%q: %s is %q, not %q in\n%s", asked.args, key, got, value, text)
				}
			}
		}
		if first(text, "Hostname") == "" {
			t.Errorf("%q: no Hostname in\n%s", asked.args, text)
		}
	}
}

func TestHeadersAreShownOfBothDirections(t *testing.T) {
	at := start(t)
	text := ask(t, "http://"+at.http+"/?header=X-Set:yes", "-H", "X-One:1", "-H", "X-One:2")
	for _, line := range []string{"[0 body] RequestHeader=X-One:1\n[0 body] RequestHeader=X-One:2\n", "[0] ResponseHeader=X-Set:yes\n", "Connection:close\n"} {
		if !strings.Contains(text, line) {
			t.Errorf("no %q in\n%s", line, text)
		}
	}
	if text = ask(t, "http://"+at.http, "--keep-alive"); strings.Contains(text, "Connection:") {
		t.Errorf("--keep-alive closes:\n%s", text)
	}
}

func TestEveryAnswerOfABatchIsABlockOfItsOwn(t *testing.T) {
	at := start(t)
	for _, target := range []string{"http://" + at.http, "grpc://" + at.grpc} {
		got := blocks(ask(t, target, "--count=500"))
		if len(got) != 500 {
			t.Fatalf("%s: %d blocks", target, len(got))
		}
		for i, block := range got {
			if !strings.HasPrefix(block, fmt.Sprintf("[%d] ", i)) || first(block, "Hostname") == "" || first(block, "StatusCode") != "200" {
				t.Fatalf("%s: block %d is\n%s", target, i, block)
			}
		}
	}
}

func TestAStatusIsAnAnswer(t *testing.T) {
	at := start(t)
	for target, want := range map[string]string{
		"http://" + at.http + "/?codes=503":           "StatusCode=503",
		"http://" + at.http + "/?codes=100":           "StatusCode=400",
		"grpc://" + at.grpc + "?codes=14&delay=1ms":   "GrpcStatus=14 Unavailable",
		"grpc://" + at.grpc + "?codes=17":             "GrpcStatus=3 InvalidArgument",
		"http://" + at.http + "/?delay=1h":            "StatusCode=400",
		"http://" + at.http + "/?codes=302&header=a:": "StatusCode=302",
	} {
		got := blocks(ask(t, target, "--count=3"))
		if len(got) != 3 || !strings.Contains(got[2], "[2] "+want+"\n") {
			t.Errorf("%s: no %q in %q", target, want, got)
		}
	}
}

func TestNoAnswerIsAFailure(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := listener.Addr().String()
	listener.Close()
	silent := start(t).http + "/?delay=20s"
	for _, args := range [][]string{
		{"http://" + closed, "--count=500"}, {"grpc://" + closed, "--count=500"}, {"tcp://" + closed}, {"http://" + silent, "--timeout=10ms"},
		{"ftp://" + closed}, {}, {"http://a", "http://b"},
	} {
		var out bytes.Buffer
		if err := client(t.Context(), args, &out); err == nil {
			t.Errorf("%q: no error; printed\n%s", args, out.String())
		}
		if got := strings.Count(out.String(), "Error="); got > failuresMax {
			t.Errorf("%q: %d tries", args, got)
		}
	}
}
