// Package upstream runs the Gateway API's own conformance suite; what of it, its flags say (run-upstream).
package upstream

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

func TestConformance(t *testing.T) {
	conformance.RunConformance(t)
}
