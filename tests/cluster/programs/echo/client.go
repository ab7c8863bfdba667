package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	connectMax = 2 * time.Second
	bodyMax    = 1 << 20
	// A dead target must not hold the caller for count times the timeout.
	failuresMax = 10
	// Sent over gRPC, TCP and UDP unless the URL has a query, which then is the message.
	greeting = "HelloWorld"
	// Called when a grpc URL has no path.
	echoMethod = "/proto.EchoTestService/Echo"
)

type options struct {
	target         *url.URL
	method, host   string
	headers        http.Header
	count          int
	timeout        time.Duration
	keepAlive      bool
	http2          bool
	skipVerify     bool
	serverName     string
	followRedirect bool
}

// answer is what one request brought: fields of the client's own, the server's text, and headers.
type answer struct {
	fields  [][2]string
	body    string
	headers map[string][]string
}

// call makes one request. An error means that there was no answer at all: a status of any kind is an answer.
type call func(context.Context) (answer, error)

func client(ctx context.Context, args []string, out io.Writer) error {
	wanted, err := parseOptions(args)
	if err != nil {
		return err
	}
	request, err := wanted.call()
	if err != nil {
		return err
	}
	buffered := bufio.NewWriter(out)
	defer buffered.Flush()
	failures, last := 0, error(nil)
	for i := range wanted.count {
		limited, cancel := context.WithTimeout(ctx, wanted.timeout)
		begin := time.Now()
		got, err := request(limited)
		cancel()
		if err != nil {
			got, last = answer{fields: [][2]string{{"Error", err.Error()}}}, err
			failures++
		}
		got.fields = append(got.fields, [2]string{"Latency", time.Since(begin).Round(time.Microsecond).String()})
		write(buffered, i, got)
		if failures == failuresMax {
			break
		}
	}
	if failures > 0 {
		return fmt.Errorf("%d requests without an answer, at last: %w", failures, last)
	}
	return nil
}

func parseOptions(args []string) (options, error) {
	wanted := options{headers: http.Header{}}
	flags := flag.NewFlagSet("client", flag.ExitOnError)
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "client [FLAG...] http|https|grpc|tcp|udp://HOST[:PORT][/PATH][?QUERY] [FLAG...]")
		flags.PrintDefaults()
	}
	flags.StringVar(&wanted.method, "method", http.MethodGet, "of HTTP")
	flags.Func("H", "`name:value`; may be repeated", func(text string) error {
		name, value, ok := strings.Cut(text, ":")
		switch value = strings.TrimSpace(value); {
		case !ok:
			return errors.New("no colon")
		case strings.EqualFold(name, "host"):
			wanted.host = value
		default:
			wanted.headers.Add(name, value)
		}
		return nil
	})
	flags.IntVar(&wanted.count, "count", 1, "how many requests, one after the other")
	flags.DurationVar(&wanted.timeout, "timeout", 5*time.Second, "of one request")
	flags.BoolVar(&wanted.keepAlive, "keep-alive", false, "one HTTP connection for all requests; gRPC always has one")
	flags.BoolVar(&wanted.http2, "http2", false, "HTTP/2, with http:// by prior knowledge")
	flags.BoolVar(&wanted.skipVerify, "k", false, "take any certificate")
	flags.StringVar(&wanted.serverName, "server-name", "", "for TLS, in place of the URL's host")
	flags.BoolVar(&wanted.followRedirect, "L", false, "follow redirects")
	// The suite puts the URL first, a person perhaps last.
	_ = flags.Parse(args)
	raw := flags.Arg(0)
	if flags.NArg() > 0 {
		_ = flags.Parse(flags.Args()[1:])
	}
	if raw == "" || flags.NArg() > 0 {
		return options{}, errors.New("client: exactly one URL is needed")
	}
	var err error
	wanted.target, err = url.Parse(raw)
	return wanted, err
}

func (o options) call() (call, error) {
	switch o.target.Scheme {
	case "http", "https":
		return o.callHTTP(), nil
	case "grpc":
		return o.callGRPC()
	case "tcp", "udp":
		return o.callSocket, nil
	default:
		return nil, fmt.Errorf("client: no such scheme: %q", o.target.Scheme)
	}
}

func (o options) callHTTP() call {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!o.http2)
	protocols.SetHTTP2(o.http2)
	protocols.SetUnencryptedHTTP2(o.http2)
	sender := &http.Client{Transport: &http.Transport{
		DialContext: (&net.Dialer{Timeout: connectMax}).DialContext,
		// Else the gzip that Go asks for would show in the echo.
		DisableCompression: true,
		// Without keep-alive the client says `Connection: close`, and the mesh balances every request anew.
		DisableKeepAlives: !o.keepAlive,
		Protocols:         protocols,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: o.skipVerify, ServerName: o.serverName},
	}}
	if !o.followRedirect {
		sender.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	return func(ctx context.Context) (answer, error) {
		request, err := http.NewRequestWithContext(ctx, o.method, o.target.String(), nil)
		if err != nil {
			return answer{}, err
		}
		request.Header, request.Host = o.headers.Clone(), o.host
		response, err := sender.Do(request)
		if err != nil {
			return answer{}, err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(io.LimitReader(response.Body, bodyMax))
		return answer{[][2]string{{"StatusCode", strconv.Itoa(response.StatusCode)}}, string(body), response.Header}, err
	}
}

func (o options) callGRPC() (call, error) {
	method := o.target.Path
	if strings.Trim(method, "/") == "" {
		method = echoMethod
	}
	dialing := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if o.host != "" {
		dialing = append(dialing, grpc.WithAuthority(o.host))
	}
	// The name is looked up where it is dialled, as with the other schemes: the mesh, not this client, balances.
	connection, err := grpc.NewClient("passthrough:///"+o.target.Host, dialing...)
	if err != nil {
		return nil, err
	}
	sent := metadata.MD{}
	for name, values := range o.headers {
		sent.Append(name, values...)
	}
	return func(ctx context.Context) (answer, error) {
		var header, trailer metadata.MD
		var server peer.Peer
		reply := new(wrapperspb.StringValue)
		err := connection.Invoke(metadata.NewOutgoingContext(ctx, sent), method, wrapperspb.String(o.message()), reply,
			grpc.Header(&header), grpc.Trailer(&trailer), grpc.Peer(&server))
		// gRPC has a status for everything; but where no connection was, nobody answered.
		if err != nil && server.Addr == nil {
			return answer{}, err
		}
		code := status.Code(err)
		got := answer{[][2]string{{"GrpcStatus", fmt.Sprintf("%d %v", code, code)}}, reply.GetValue(), metadata.Join(header, trailer)}
		if err != nil {
			got.fields = append(got.fields, [2]string{"GrpcMessage", status.Convert(err).Message()})
		}
		return got, nil
	}, nil
}

// callSocket sends a line over TCP and reads to the end, or a datagram over UDP and reads one.
func (o options) callSocket(ctx context.Context) (answer, error) {
	connection, err := (&net.Dialer{Timeout: connectMax}).DialContext(ctx, o.target.Scheme, o.target.Host)
	if err != nil {
		return answer{}, err
	}
	defer connection.Close()
	deadline, _ := ctx.Deadline()
	_ = connection.SetDeadline(deadline)
	if o.target.Scheme == "udp" {
		if _, err = io.WriteString(connection, o.message()); err != nil {
			return answer{}, err
		}
		datagram := make([]byte, messageMax)
		size, err := connection.Read(datagram)
		return answer{body: string(datagram[:size])}, err
	}
	if _, err = io.WriteString(connection, o.message()+"\n"); err != nil {
		return answer{}, err
	}
	body, err := io.ReadAll(io.LimitReader(connection, bodyMax))
	if err == nil && len(body) == 0 {
		err = errors.New("closed without a word")
	}
	return answer{body: string(body)}, err
}

func (o options) message() string {
	if o.target.RawQuery != "" {
		return o.target.RawQuery
	}
	return greeting
}

// write prints one answer as a block of lines that an empty line ends; within a block none is empty.
func write(out io.Writer, i int, got answer) {
	for _, one := range got.fields {
		field(out, fmt.Sprintf("[%d] %s", i, one[0]), one[1])
	}
	for line := range strings.SplitSeq(got.body, "\n") {
		if line = strings.TrimRight(line, "\r"); line != "" {
			fmt.Fprintf(out, "[%d body] %s\n", i, line)
		}
	}
	headers(out, fmt.Sprintf("[%d] ResponseHeader", i), got.headers)
	fmt.Fprintln(out)
}
