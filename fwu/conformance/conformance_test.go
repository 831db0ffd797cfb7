package conformance

import "testing"

func TestModel(t *testing.T) {
	r := Run(t, func(_ testing.TB, comps []Config) Implementation { return NewModel(DefaultProfile(), comps) }, Options{})
	t.Log(r)
}
