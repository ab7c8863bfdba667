package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	// How long an ending server waits for requests in flight.
	graceMax = 5 * time.Second
	// How long one exchange may take: above every delay that can be asked for.
	exchangeMax = 60 * time.Second
	delayMax    = 30 * time.Second
	messageMax  = 64 * 1024
)

type ports []int

func (p *ports) String() string { return fmt.Sprint(*p) }

func (p *ports) Set(text string) error {
	number, err := strconv.ParseUint(text, 10, 16)
	*p = append(*p, int(number))
	return err
}

// serve runs one port until the context ends.
type serve func(context.Context) error

func server(ctx context.Context, args []string) error {
	var plain, secure, rpc, tcp, udp ports
	flags := flag.NewFlagSet("server", flag.ExitOnError)
	flags.Var(&plain, "port", "HTTP `port`: HTTP/1.1 and h2c; may be repeated, as each port flag")
	flags.Var(&secure, "tls", "which of the HTTP ports speak TLS")
	flags.Var(&rpc, "grpc", "gRPC `port`")
	flags.Var(&tcp, "tcp", "TCP `port`: answers a line")
	flags.Var(&udp, "udp", "UDP `port`: answers a datagram")
	certificateFile := flags.String("crt", "", "certificate `file`; without that file the server signs its own")
	keyFile := flags.String("key", "", "key `file`")
	_ = flags.Parse(args)
	if len(plain)+len(rpc)+len(tcp)+len(udp) == 0 {
		// A pod that only asks others is given no port by the suite and has to stay all the same.
		plain = ports{8080}
	}

	certificate, err := loadCertificate(*certificateFile, *keyFile)
	if err != nil {
		return err
	}
	// First every port is opened, so that a port that is taken ends the program before anyone is answered.
	var serves []serve
	listen := func(numbers ports, serving func(net.Listener, int) serve) {
		for _, port := range numbers {
			listener, failed := net.Listen("tcp", ":"+strconv.Itoa(port))
			err = errors.Join(err, failed)
			serves = append(serves, serving(listener, port))
		}
	}
	listen(plain, func(l net.Listener, port int) serve {
		if slices.Contains(secure, port) {
			return serveHTTPS(l, certificate)
		}
		return serveHTTP(l)
	})
	listen(rpc, func(l net.Listener, _ int) serve { return serveGRPC(l) })
	listen(tcp, func(l net.Listener, _ int) serve { return serveTCP(l) })
	for _, port := range udp {
		socket, failed := net.ListenPacket("udp", ":"+strconv.Itoa(port))
		err = errors.Join(err, failed)
		serves = append(serves, serveUDP(socket))
	}
	if err != nil {
		return err
	}
	log.Printf("http %v (tls %v) grpc %v tcp %v udp %v", plain, secure, rpc, tcp, udp)
	return all(ctx, serves)
}

// all runs every port; the first that fails ends the others.
func all(ctx context.Context, serves []serve) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error)
	for _, run := range serves {
		go func() { ended <- run(ctx) }()
	}
	var failed error
	for range serves {
		if err := <-ended; err != nil {
			failed = errors.Join(failed, err)
			cancel()
		}
	}
	return failed
}

// until runs a server, and stops it when the context ends.
func until(ctx context.Context, run func() error, stop func()) error {
	failed := make(chan error, 1)
	go func() { failed <- run() }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		stop()
		<-failed
		return nil
	}
}

func serveHTTP(listener net.Listener) serve {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return serveWeb(listener, &http.Server{Protocols: protocols})
}

func serveHTTPS(listener net.Listener, certificate tls.Certificate) serve {
	return serveWeb(listener, &http.Server{TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}}})
}

func serveWeb(listener net.Listener, web *http.Server) serve {
	web.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { echoHTTP(w, r, portOf(listener.Addr())) })
	web.ReadHeaderTimeout, web.WriteTimeout = exchangeMax, exchangeMax
	return func(ctx context.Context) error {
		return until(ctx, func() error {
			if web.TLSConfig != nil {
				return web.ServeTLS(listener, "", "")
			}
			return web.Serve(listener)
		}, func() {
			grace, cancel := context.WithTimeout(context.Background(), graceMax)
			defer cancel()
			_ = web.Shutdown(grace)
			_ = web.Close()
		})
	}
}

func echoHTTP(w http.ResponseWriter, r *http.Request, port int) {
	wish, err := parseWish(r.URL.Query(), http.StatusOK, 599) // 1xx end no response
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if !wish.wait(r.Context()) {
		return
	}
	answer := new(strings.Builder)
	describe(answer, r.Proto, port, r.RemoteAddr)
	if r.TLS != nil {
		field(answer, "Alpn", r.TLS.NegotiatedProtocol)
		field(answer, "ServerName", r.TLS.ServerName)
	}
	field(answer, "Method", r.Method)
	field(answer, "Host", r.Host)
	field(answer, "URL", r.RequestURI)
	headers(answer, "RequestHeader", r.Header)
	for _, header := range r.URL.Query()["header"] {
		name, value, _ := strings.Cut(header, ":")
		w.Header().Add(name, value)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if wish.code != 0 {
		w.WriteHeader(wish.code)
	}
	_, _ = io.WriteString(w, answer.String())
}

// Every method of every service is an echo, so that a route can match any; an UNIMPLEMENTED is never the server's own.
func serveGRPC(listener net.Listener) serve {
	rpc := grpc.NewServer(grpc.MaxRecvMsgSize(messageMax), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		return echoGRPC(stream, portOf(listener.Addr()))
	}))
	return func(ctx context.Context) error {
		return until(ctx, func() error { return rpc.Serve(listener) }, func() {
			timer := time.AfterFunc(graceMax, rpc.Stop)
			defer timer.Stop()
			rpc.GracefulStop()
		})
	}
}

func echoGRPC(stream grpc.ServerStream, port int) error {
	ctx := stream.Context()
	request := new(wrapperspb.StringValue)
	if err := stream.RecvMsg(request); err != nil {
		return err
	}
	query, err := url.ParseQuery(request.GetValue())
	if err != nil {
		query = nil // a message needs not be a query
	}
	wish, err := parseWish(query, int(codes.Canceled), int(codes.Unauthenticated))
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if !wish.wait(ctx) {
		return status.FromContextError(ctx.Err()).Err()
	}
	if wish.code != 0 {
		return status.Error(codes.Code(wish.code), "as asked for")
	}
	answer, from := new(strings.Builder), ""
	if client, ok := peer.FromContext(ctx); ok {
		from = client.Addr.String()
	}
	field(answer, "StatusCode", "200")
	describe(answer, "GRPC", port, from)
	method, _ := grpc.MethodFromServerStream(stream)
	field(answer, "Method", method)
	received, _ := metadata.FromIncomingContext(ctx)
	field(answer, "Host", strings.Join(received.Get(":authority"), ","))
	field(answer, "Echo", request.GetValue())
	received.Delete(":authority") // the Host, and no header
	headers(answer, "RequestHeader", received)
	return stream.SendMsg(wrapperspb.String(answer.String()))
}

func serveTCP(listener net.Listener) serve {
	return func(ctx context.Context) error {
		return until(ctx, func() error {
			for {
				connection, err := listener.Accept()
				if err != nil {
					return err
				}
				go echoTCP(connection, portOf(listener.Addr()))
			}
		}, func() { _ = listener.Close() })
	}
}

func echoTCP(connection net.Conn, port int) {
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(exchangeMax))
	line, err := bufio.NewReader(io.LimitReader(connection, messageMax)).ReadString('\n')
	if err != nil {
		return
	}
	_, _ = io.WriteString(connection, echoBytes("TCP", port, connection.RemoteAddr(), strings.TrimRight(line, "\r\n")))
}

func serveUDP(socket net.PacketConn) serve {
	return func(ctx context.Context) error {
		return until(ctx, func() error {
			datagram := make([]byte, messageMax)
			for {
				size, from, err := socket.ReadFrom(datagram)
				if err != nil {
					return err
				}
				_, _ = socket.WriteTo([]byte(echoBytes("UDP", portOf(socket.LocalAddr()), from, string(datagram[:size]))), from)
			}
		}, func() { _ = socket.Close() })
	}
}

func echoBytes(proto string, port int, from net.Addr, message string) string {
	answer := new(strings.Builder)
	field(answer, "StatusCode", "200")
	describe(answer, proto, port, from.String())
	field(answer, "Echo", message)
	return answer.String()
}

// describe writes what the server knows of itself and of the connection.
func describe(out io.Writer, proto string, port int, from string) {
	field(out, "ServiceVersion", os.Getenv("VERSION"))
	field(out, "ServicePort", strconv.Itoa(port))
	for _, known := range []struct{ key, variable string }{{"Cluster", "CLUSTER"}, {"Namespace", "NAMESPACE"}} {
		if value := os.Getenv(known.variable); value != "" {
			field(out, known.key, value)
		}
	}
	field(out, "Proto", proto)
	address, _, _ := net.SplitHostPort(from)
	field(out, "IP", address)
	// Behind IP, for which a regex without an anchor would take it.
	if value := os.Getenv("POD_IP"); value != "" {
		field(out, "PodIP", value)
	}
	hostname, _ := os.Hostname()
	field(out, "Hostname", hostname)
}

// wish is what a request asks of the server: a delay, and a status other than success.
type wish struct {
	delay time.Duration
	code  int
}

func parseWish(query url.Values, lowest, highest int) (wish, error) {
	var asked wish
	var err error
	if text := query.Get("delay"); text != "" {
		if asked.delay, err = time.ParseDuration(text); err != nil || asked.delay > delayMax {
			return wish{}, fmt.Errorf("delay %q: no duration of %v at most", text, delayMax)
		}
	}
	if text := query.Get("codes"); text != "" {
		if asked.code, err = strconv.Atoi(text); err != nil || asked.code < lowest || asked.code > highest {
			return wish{}, fmt.Errorf("codes %q: no status from %d to %d", text, lowest, highest)
		}
	}
	return asked, nil
}

// wait tells whether the client is still there after the delay.
func (w wish) wait(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(w.delay):
		return true
	}
}

func portOf(address net.Addr) int {
	switch a := address.(type) {
	case *net.TCPAddr:
		return a.Port
	case *net.UDPAddr:
		return a.Port
	default:
		return 0
	}
}

// loadCertificate signs one when there is no such file: the suite names files of its own image.
func loadCertificate(certificateFile, keyFile string) (tls.Certificate, error) {
	certificate, err := tls.LoadX509KeyPair(certificateFile, keyFile)
	if !errors.Is(err, fs.ErrNotExist) {
		return certificate, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"echo"}, NotAfter: time.Now().AddDate(1, 0, 0)}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{signed}, PrivateKey: key}, err
}
