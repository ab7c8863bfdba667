// Program h2spec runs every case of the h2spec library, the strict ones included, against an HTTP/2 server with prior knowledge.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"

	"isthmus.dev/protocols/report"
)

// What the library calls the longest header field that a server must take.
const headerBytesMax = 4000

func main() {
	host := flag.String("host", "", "whom to connect to")
	port := flag.Int("port", 80, "at which port")
	path := flag.String("path", "/", "what to ask for")
	timeout := flag.Duration("timeout", 2*time.Second, "how long a case waits for the server")
	verbose := flag.Bool("verbose", false, "show the frames of each case on standard error")
	only := flag.String("only", "", "run only this case")
	flag.Parse()
	report.EndWithParent()

	// The library prints as it goes; standard output belongs to the report.
	results := os.Stdout
	quiet, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		log.Fatal(err)
	}
	os.Stdout = quiet
	if *verbose {
		os.Stdout = os.Stderr
	}
	c := &config.Config{
		Host: *host, Port: *port, Path: *path, Timeout: *timeout, MaxHeaderLen: headerBytesMax, Strict: true, Verbose: *verbose,
	}
	if *only != "" {
		c.Sections = []string{*only}
	}
	for _, group := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
		if err := run(results, c, group); err != nil {
			log.Fatal(err)
		}
	}
}

func run(to io.Writer, c *config.Config, group *spec.TestGroup) error {
	for index, test := range append(group.Tests, group.StrictTests...) {
		id := fmt.Sprintf("%s/%d", group.ID(), index+1)
		// An error is one of connecting, after which there is no result.
		err := test.Test(c, index+1)
		if err == nil && test.Result == nil {
			continue
		}
		verdict, detail := judge(test, err)
		told := report.Case{ID: id, Name: group.Name + ": " + test.Desc, Verdict: verdict, Detail: detail}
		if err := report.Write(to, told); err != nil {
			return err
		}
	}
	for _, inner := range group.Groups {
		if err := run(to, c, inner); err != nil {
			return err
		}
	}
	return nil
}

func judge(test *spec.TestCase, connecting error) (report.Verdict, string) {
	switch {
	case connecting != nil:
		return report.Failed, connecting.Error()
	case test.Result.Skipped:
		return report.Skipped, "the case does not apply to what the server says of itself"
	case !test.Result.Failed:
		return report.Passed, ""
	}
	if err, ok := test.Result.Error.(*spec.TestError); ok {
		return report.Failed, fmt.Sprintf("%s Expected: %s. Actual: %s.", test.Requirement, strings.Join(err.Expected, " or "), err.Actual)
	}
	return report.Failed, test.Result.Error.Error()
}
