package clusterset

import (
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
)

// A mesh that chooses at random with exactly the expected shares fails one comparison in this many at most. There are fewer
// than 40 in the suite, so that a run has a false alarm with a probability of less than 4e-8.
const falseAlarm = 1e-9

// SpreadCount is how many requests show that each of two equally likely answers occurs: one is missing with 2 * 0.5^40 = 2e-12.
const SpreadCount = 40

// Counts are numbers of answers by who gave them.
type Counts map[string]int

// Of sums up what a workload answered, or all workloads of an app: "cart" is "cart-first" and "cart-second".
func (counts Counts) Of(name string) int {
	sum := 0
	for who, count := range counts {
		if who == name || strings.HasPrefix(who, name+"-") {
			sum += count
		}
	}
	return sum
}

// ByCluster regroups the answers of workloads, whatever their app, by the ordinal of their cluster.
func (counts Counts) ByCluster() Counts {
	grouped := Counts{}
	for who, count := range counts {
		for _, ordinal := range []string{First, Second} {
			if strings.HasSuffix(who, "-"+ordinal) {
				who = ordinal
			}
		}
		grouped[who] += count
	}
	return grouped
}

func (counts Counts) total() int {
	sum := 0
	for _, count := range counts {
		sum += count
	}
	return sum
}

// MustHaveAll fails unless each of those answered at least once.
func (counts Counts) MustHaveAll(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if counts.Of(name) == 0 {
			t.Errorf("nothing was answered by %s: %v", name, counts)
		}
	}
}

// MustBeOnly fails if anybody else answered.
func (counts Counts) MustBeOnly(t *testing.T, names ...string) {
	t.Helper()
	sum := 0
	for _, name := range names {
		sum += counts.Of(name)
	}
	if sum != counts.total() {
		t.Errorf("answered by others than %s: %v", strings.Join(names, " and "), counts)
	}
}

// MustBeShared fails unless the answers are shared so, up to chance, and nobody else answered.
func (counts Counts) MustBeShared(t *testing.T, shares map[string]float64) {
	t.Helper()
	counts.MustBeOnly(t, slices.Collect(maps.Keys(shares))...)
	for name, share := range shares {
		low, high := band(counts.total(), share)
		if got := counts.Of(name); got < low || got > high {
			t.Errorf("%s answered %d of %d, not between %d and %d (share %.3f): %v", name, got, counts.total(), low, high, share, counts)
		}
	}
}

// band is the narrowest range that a binomial number leaves, at each end, with at most half the probability of a false alarm.
func band(n int, p float64) (low, high int) {
	low, high = 0, n
	for sum := probability(low, n, p); low < n && sum <= falseAlarm/2; sum += probability(low, n, p) {
		low++
	}
	for sum := probability(high, n, p); high > 0 && sum <= falseAlarm/2; sum += probability(high, n, p) {
		high--
	}
	return low, high
}

// probability that exactly k of n happen, by logarithms since the coefficients are beyond what a float64 holds.
func probability(k, n int, p float64) float64 {
	if p <= 0 || p >= 1 {
		if (p <= 0 && k == 0) || (p >= 1 && k == n) {
			return 1
		}
		return 0
	}
	logFactorial := func(x int) float64 {
		value, _ := math.Lgamma(float64(x) + 1)
		return value
	}
	choose := logFactorial(n) - logFactorial(k) - logFactorial(n-k)
	return math.Exp(choose + float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p))
}
