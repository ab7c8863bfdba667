package main

import (
	"context"
	"log"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

const (
	soakCalls   = 100
	soakWorkers = 4
	// Of the two bodies of a call, as in gRPC's own description of the case.
	soakRequestBytes  = 271828
	soakResponseBytes = 314159
	// The machine may be busy; latency is not what is looked at here.
	soakCallMax = 20 * time.Second
	soakMax     = 50 * time.Second
)

// The interoperability package registers this balancer; it hears of the load reports that the case is about.
const reportingBalancer = `{"loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]}`

// A case of https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md; `run` ends the process if it fails.
type interopCase struct {
	id, name      string
	serviceConfig string
	run           func(context.Context, *grpc.ClientConn)
}

// With a stub of the service that all cases but two use.
func stub(run func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption)) func(context.Context, *grpc.ClientConn) {
	return func(ctx context.Context, channel *grpc.ClientConn) { run(ctx, testgrpc.NewTestServiceClient(channel)) }
}

var cases = []interopCase{
	{id: "empty_unary", name: "unary: an empty request and an empty answer", run: stub(interop.DoEmptyUnaryCall)},
	{id: "large_unary", name: "unary: a large request and a large answer", run: stub(interop.DoLargeUnaryCall)},
	{id: "client_streaming", name: "client streaming: many requests, one answer", run: stub(interop.DoClientStreaming)},
	{id: "server_streaming", name: "server streaming: one request, many answers", run: stub(interop.DoServerStreaming)},
	{id: "ping_pong", name: "bidirectional streaming: each waits for the other", run: stub(interop.DoPingPong)},
	{id: "empty_stream", name: "bidirectional streaming: nothing said", run: stub(interop.DoEmptyStream)},
	{id: "timeout_on_sleeping_server", name: "the client's deadline passes", run: stub(interop.DoTimeoutOnSleepingServer)},
	{id: "cancel_after_begin", name: "cancelled before anything was sent", run: stub(interop.DoCancelAfterBegin)},
	{id: "cancel_after_first_response", name: "cancelled after the first answer", run: stub(interop.DoCancelAfterFirstResponse)},
	{id: "custom_metadata", name: "metadata there, and back as headers and trailers", run: stub(interop.DoCustomMetadata)},
	{id: "status_code_and_message", name: "a status and its message, unary and streaming", run: stub(interop.DoStatusCodeAndMessage)},
	{id: "special_status_message", name: "whitespace and Unicode in a status message", run: stub(interop.DoSpecialStatusMessage)},
	{id: "unimplemented_method", name: "a method that is not implemented", run: interop.DoUnimplementedMethod},
	{id: "unimplemented_service", name: "a service that is not implemented", run: func(ctx context.Context, channel *grpc.ClientConn) {
		interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(channel))
	}},
	{id: "orca_per_rpc", name: "a load report in the trailers", serviceConfig: reportingBalancer,
		run: func(ctx context.Context, channel *grpc.ClientConn) {
			interop.DoORCAPerRPCTest(ctx, testgrpc.NewTestServiceClient(channel))
		}},
	{id: "rpc_soak", name: "100 large calls on one channel, 4 at a time", run: func(ctx context.Context, channel *grpc.ClientConn) {
		soak(ctx, channel.Target(), func() (*grpc.ClientConn, func()) { return channel, func() {} })
	}},
	{id: "channel_soak", name: "100 large calls on a channel each, 4 at a time", run: func(ctx context.Context, channel *grpc.ClientConn) {
		soak(ctx, channel.Target(), func() (*grpc.ClientConn, func()) {
			own := dial(channel.Target(), "")
			return own, func() { own.Close() }
		})
	}},
}

func soak(ctx context.Context, target string, channel func() (*grpc.ClientConn, func())) {
	interop.DoSoakTest(ctx, interop.SoakTestConfig{
		RequestSize: soakRequestBytes, ResponseSize: soakResponseBytes, PerIterationMaxAcceptableLatency: soakCallMax,
		OverallTimeout: soakMax, ServerAddr: target, NumWorkers: soakWorkers, Iterations: soakCalls, ChannelForTest: channel,
	})
}

func dial(target, serviceConfig string) *grpc.ClientConn {
	// Names are in the pod's hosts file; the lab has no server that would say that there is no service config in the DNS.
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableServiceConfig()}
	if serviceConfig != "" {
		options = append(options, grpc.WithDefaultServiceConfig(serviceConfig))
	}
	channel, err := grpc.NewClient(target, options...)
	if err != nil {
		log.Fatal(err)
	}
	return channel
}
