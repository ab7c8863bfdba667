package serviceimport_test

import (
	"testing"

	"isthmus.dev/tests/conformance/serviceimport"
)

func TestConformance(t *testing.T) {
	serviceimport.RunConformance(t)
}
