package conformance

import (
	"os"
	"testing"
)

// Full tells that everything is to be run, and not only what takes a few seconds.
func Full() bool { return os.Getenv("FWUAB_CONFORMANCE") == "full" }

// Steps is how many random steps are to be made: all, or by default a few.
func Steps(all, few int) int {
	switch {
	case Full():
		return all
	case testing.Short():
		return few / 5
	}
	return few
}
