// Package report is how a suite tells its runner what it found: one line of JSON a case, on standard output, as soon as the case has ended.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// Verdict is how a case ended.
type Verdict string

const (
	Passed  Verdict = "passed"
	Failed  Verdict = "failed"
	Skipped Verdict = "skipped"
)

// Case is what is told of a case.
type Case struct {
	ID      string  `json:"case"`
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"`
	Detail  string  `json:"detail"`
}

// Write tells of a case.
func Write(to io.Writer, c Case) error {
	line, err := json.Marshal(c)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(to, "%s\n", line)
	return err
}

// EndWithParent ends this program when its standard input ends: the runner holds the other end, and the kernel closes it however the runner
// ends.
func EndWithParent() {
	go func() {
		// The runner writes nothing; any end of the pipe is the end.
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
}
