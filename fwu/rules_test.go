package fwu

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// findings calls f with every finding.
func findings(f func(finding)) {
	for state := unrecorded; state <= keeping; state <<= 1 {
		for runs := oldBank; runs <= newBank; runs <<= 1 {
			for def := defaultNone; def <= defaultOther; def <<= 1 {
				for armed := notArmed; armed <= maybeArmed; armed <<= 1 {
					for same := isNo; same <= isYes; same <<= 1 {
						for other := otherStartable; other <= otherUnreadable; other <<= 1 {
							for asked := rebootUnused; asked <= rebootUsed; asked <<= 1 {
								f(finding{state, runs, def, armed, same, other, asked})
							}
						}
					}
				}
			}
		}
	}
}

func TestExactlyOneRuleMatchesEachFinding(t *testing.T) {
	used, n := map[string]int{}, 0
	findings(func(f finding) {
		n++
		found := matching(f)
		if len(found) != 1 {
			t.Errorf("%d rules for %s", len(found), f)
		}
		for _, r := range found {
			used[r.finding.String()]++
		}
	})
	for _, r := range bankRules() {
		if used[r.finding.String()] == 0 {
			t.Errorf("no finding has the rule for %s", r.finding)
		}
	}
	t.Logf("%d findings, %d rules", n, len(bankRules()))
}

func TestFindingWithoutARuleIsAnError(t *testing.T) {
	if _, err := judge(finding{}); StatusOf(err) != GenericError || ReasonOf(err) != ReasonReconcile {
		t.Errorf("judge: %v", err)
	}
}

// An event that the table has no row for must not change the record.
func TestEventWithoutARowIsAnError(t *testing.T) {
	s := &Service{}
	r := &record{Components: map[string]*componentRecord{"rootfs": {State: Ready}}}
	if to := s.move(r, Component{Name: "rootfs"}, evAccept); to != Ready || r.fault == nil {
		t.Errorf("READY became %v, fault %v", to, r.fault)
	}
}

// bankTable is the bank's state machine for docs/design.md.
func bankTable() string {
	var b strings.Builder
	row := func(cells []string) {
		for _, c := range cells {
			b.WriteString(strings.TrimSuffix("| "+c, " ") + " ")
		}
		b.WriteString("|\n")
	}
	row(append(headings(), "what is done"))
	fmt.Fprintf(&b, "|%s\n", strings.Repeat("---|", len(headings())+1))
	for _, r := range bankRules() {
		row(append(r.columns(), r.outcome()))
	}
	return b.String()
}

// The table in docs/design.md is made from the rules. FWUAB_UPDATE=1 writes it.
func TestTableInTheDocumentationIsTheTableOfTheCode(t *testing.T) {
	const file, begin, end = "../docs/design.md", "<!-- bank: begin -->\n", "<!-- bank: end -->\n"
	doc, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(doc), begin)
	table, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no place for the table", file)
	}
	want := bankTable()
	if table == want {
		return
	}
	if os.Getenv("FWUAB_UPDATE") != "1" {
		t.Fatalf("the table in %s is not that of fwu/bank.go: make docs writes it", file)
	}
	if err := os.WriteFile(file, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
