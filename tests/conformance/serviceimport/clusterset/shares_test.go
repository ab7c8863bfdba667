package clusterset

import (
	"maps"
	"testing"
)

func TestABandHoldsAllButAFalseAlarm(t *testing.T) {
	for _, c := range []struct {
		n int
		p float64
	}{{500, 0.7}, {1000, 0.1}, {400, 0.5}, {600, 1.0 / 3}, {40, 0.5}} {
		low, high := band(c.n, c.p)
		outside, all := 0.0, 0.0
		for k := range c.n + 1 {
			all += probability(k, c.n, c.p)
			if k < low || k > high {
				outside += probability(k, c.n, c.p)
			}
		}
		if outside > falseAlarm || all < 1-1e-9 || all > 1+1e-9 {
			t.Errorf("n=%d p=%v: [%d, %d] leaves %g of %g", c.n, c.p, low, high, outside, all)
		}
		// One narrower on either side would leave too much.
		if probability(low, c.n, c.p)+outside < falseAlarm/2 || probability(high, c.n, c.p)+outside < falseAlarm/2 {
			t.Errorf("n=%d p=%v: [%d, %d] is too wide", c.n, c.p, low, high)
		}
	}
}

func TestACertainShareHasNoTolerance(t *testing.T) {
	for p, want := range maps.All(map[float64]int{0: 0, 1: 50}) {
		if low, high := band(50, p); low != want || high != want {
			t.Errorf("p=%v: [%d, %d]", p, low, high)
		}
	}
}

func TestWorkloadsOfAnAppAreSummedUp(t *testing.T) {
	counts := Counts{"cart-first": 2, "cart-second": 3, "carts-first": 7, "500": 1}
	if got := counts.Of("cart"); got != 5 {
		t.Errorf("cart: %d", got)
	}
	if got := workload("cart-first-6d4cf56db6-x2x7p"); got != "cart-first" {
		t.Errorf("workload: %s", got)
	}
}
