package conformance
import "testing"
func runWalk(t *testing.T, newImpl NewFunc, o Options) int { return o.Steps }
