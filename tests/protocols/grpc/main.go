// Program grpc runs the interoperability cases that gRPC's authors wrote, of the client and of the server in Go.
//
//	grpc serve ADDRESS          the server
//	grpc ask TARGET             every case, each in a process of its own: a case that fails ends its process
//	grpc case NAME TARGET       one case
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/orca"

	"isthmus.dev/protocols/report"
)

const (
	// A case that takes longer has failed.
	patience = time.Minute
	// Of what a failed case said; the log has all of it.
	detailLinesMax = 12
)

func main() {
	log.SetFlags(0)
	arguments := os.Args[1:]
	switch {
	case len(arguments) == 2 && arguments[0] == "serve":
		report.EndWithParent()
		log.Fatal(serve(arguments[1]))
	case len(arguments) == 2 && arguments[0] == "ask":
		report.EndWithParent()
		if err := ask(arguments[1]); err != nil {
			log.Fatal(err)
		}
	case len(arguments) == 3 && arguments[0] == "case":
		if err := one(arguments[1], arguments[2]); err != nil {
			log.Fatal(err)
		}
	default:
		log.Fatal("grpc serve ADDRESS | ask TARGET | case NAME TARGET")
	}
}

func serve(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := grpc.NewServer(orca.CallMetricsServerOption(nil))
	testgrpc.RegisterTestServiceServer(server, interop.NewTestServer())
	fmt.Println("listening")
	return server.Serve(listener)
}

func ask(target string) error {
	own, err := os.Executable()
	if err != nil {
		return err
	}
	for _, c := range cases {
		told := report.Case{ID: c.id, Name: c.name, Verdict: report.Passed}
		if err := inItsOwnProcess(own, c.id, target); err != nil {
			told.Verdict, told.Detail = report.Failed, err.Error()
		}
		if err := report.Write(os.Stdout, told); err != nil {
			return err
		}
	}
	return nil
}

func inItsOwnProcess(own, id, target string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	command := exec.CommandContext(ctx, own, "case", id, target)
	// Its input ends with ours.
	input, err := command.StdinPipe()
	if err != nil {
		return err
	}
	defer input.Close()
	said, err := command.CombinedOutput()
	if ctx.Err() != nil {
		err = fmt.Errorf("not within %v", patience)
	}
	log.Printf("%s:\n%s", id, said)
	if err != nil {
		lines := strings.Split(strings.TrimSpace(string(said)), "\n")
		lines = lines[max(0, len(lines)-detailLinesMax):]
		return errors.New(strings.Join(append(lines, err.Error()), "\n"))
	}
	return nil
}

func one(id, target string) error {
	report.EndWithParent()
	for _, c := range cases {
		if c.id == id {
			channel := dial(target, c.serviceConfig)
			defer channel.Close()
			c.run(context.Background(), channel)
			return nil
		}
	}
	return fmt.Errorf("no case %q", id)
}
