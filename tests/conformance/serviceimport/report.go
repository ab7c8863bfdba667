package serviceimport

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"
	confv1 "sigs.k8s.io/gateway-api/conformance/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
	"sigs.k8s.io/yaml"
)

var summaryOutput = flag.String("summary-output", "", "The file where to write a table of the tests by feature")

type result struct {
	feature features.FeatureName
	test    string
	outcome string
	took    time.Duration
}

// summary lists the tests by the feature that each is about: the last one of its list.
type summary struct {
	results []result
	since   time.Time
}

func (all *summary) start() {
	all.since = time.Now()
}

func (all *summary) add(t *testing.T, test suite.ConformanceTest, _ *suite.ConformanceTestSuite) {
	outcome := "passed"
	switch {
	case t.Failed():
		outcome = "FAILED"
	case t.Skipped():
		outcome = "not run"
	}
	now := time.Now()
	all.results = append(all.results, result{test.Features[len(test.Features)-1], test.ShortName, outcome, now.Sub(all.since)})
	all.since = now
}

func (all *summary) write(t *testing.T) {
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FEATURE\tTEST\tRESULT\tSECONDS")
	slices.SortStableFunc(all.results, func(a, b result) int {
		return cmp.Or(cmp.Compare(strings.Count(string(a.feature), "/"), strings.Count(string(b.feature), "/")), cmp.Compare(a.feature, b.feature))
	})
	counts := map[string]int{}
	for _, one := range all.results {
		fmt.Fprintf(table, "%s\t%s\t%s\t%.1f\n", one.feature, one.test, one.outcome, one.took.Seconds())
		counts[one.outcome]++
	}
	require.NoError(t, table.Flush())
	fmt.Fprintf(&text, "%d passed, %d failed, %d not run\n", counts["passed"], counts["FAILED"], counts["not run"])
	t.Logf("\n%s", text.String())
	if *summaryOutput != "" {
		require.NoError(t, os.WriteFile(*summaryOutput, []byte(text.String()), 0o644))
	}
}

func writeReport(t *testing.T, report *confv1.ConformanceReport, path string) {
	if path == "" {
		return
	}
	raw, err := yaml.Marshal(report)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, raw, 0o644))
}
