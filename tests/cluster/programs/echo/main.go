// A stand-in for the echo-advanced image of the Gateway API's conformance suite: "server" or "client", as its name says.
//
// The suite calls the client in a pod and reads Key=Value lines with regexes that take a key's first occurrence. So what
// a request brought along (path, headers) stands behind what the server knows of itself.
package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

var oneLine = strings.NewReplacer("\r", " ", "\n", " ")

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	run := func() error { return server(ctx, os.Args[1:]) }
	if filepath.Base(os.Args[0]) == "client" {
		run = func() error { return client(ctx, os.Args[1:], os.Stdout) }
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}

// field writes one Key=Value line; a value never spreads over more lines, as one line is one field.
func field(out io.Writer, key, value string) {
	fmt.Fprintf(out, "%s=%s\n", key, oneLine.Replace(value))
}

// headers writes a line a value, sorted by name.
func headers(out io.Writer, key string, values map[string][]string) {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		for _, value := range values[name] {
			field(out, key, name+":"+value)
		}
	}
}
