package conformance

import (
	"fmt"
	"strings"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// figure is one state diagram of the specification, twice: as the arrows that are drawn, and as a matrix that says what each call and each reboot does in
// every state that the variant has. A test holds one against the other.
//
// In the matrix, a state with a prime (') has the new image active, one without it the image that was active when the update began. A cell is the next state, or
//
//	.      BAD_STATE, nothing changes
//	..     as . but, the call being optional for this variant (section 5.2.1), NOT_SUPPORTED is permitted
//	=      SUCCESS, nothing changes
//	=†     nothing changes unless WRITING is volatile, which is implementation defined for non-volatile staging; else READY (cancel and clean)
//	=‡     the same for FAILED and UPDATED (clean)
//	!0     after a state: the error field is that after a cancel; !g that after a trial or installation lost to a reboot; !e the one that reject was given
//	+R     after a state: the status is SUCCESS_REBOOT
//
// Calls that apply to no component of the table (install, accept, reject) are in the matrix because there is just one component.
type figure struct {
	name    string
	variant Variant
	arrows  string // from -event-> to, as drawn; a reboot that a mark stands for is event †, ‡ or *
	matrix  string
}

// figures are the eight: section 4.2.3 and appendix C.
func figures() []figure {
	return []figure{
		{
			name: "figure 7: standard", variant: Variant{Reboot: true, Trial: true},
			arrows: `
READY -start-> WRITING         WRITING -write-> WRITING       WRITING -finish-> CANDIDATE    WRITING -cancel-> FAILED
CANDIDATE -cancel-> FAILED     CANDIDATE -install-> STAGED    STAGED -reboot-> TRIAL         STAGED -reboot-> FAILED
STAGED -reject-> FAILED        FAILED -clean-> READY          TRIAL -accept-> UPDATED        TRIAL -reject-> REJECTED
TRIAL -reboot-> FAILED         REJECTED -reboot-> FAILED      UPDATED -clean-> READY
WRITING -†-> READY             FAILED -‡-> READY              UPDATED -‡-> READY`,
			matrix: `
                 READY     WRITING    CANDIDATE  STAGED     FAILED     TRIAL'       REJECTED'    UPDATED'
start            WRITING   .          .          .          .          .            .            .
write            .         WRITING    .          .          .          .            .            .
finish           .         CANDIDATE  .          .          .          .            .            .
cancel           .         FAILED!0   FAILED!0   .          .          .            .            .
clean            .         .          .          .          READY      .            .            READY'
install          .         .          STAGED+R   .          .          .            .            .
accept           .         .          .          .          .          UPDATED'     .            .
reject           .         .          .          FAILED!e   .          REJECTED'!e+R .           .
request-reboot   =         =          =          =          =          =            =            =
reboot           =         =†         =          TRIAL'     =‡         FAILED!g     FAILED!e     =‡
reboot-failing   =         =†         =          FAILED!g   =‡         FAILED!g     FAILED!e     =‡
reboot-bypassed  =         =†         =          CANDIDATE  =‡         REJECTED'!g  =            =‡
service-restart  =         =          =          =          =          =            =            =`,
		},
		{
			name: "figure 9: no trial", variant: Variant{Reboot: true},
			arrows: `
READY -start-> WRITING         WRITING -write-> WRITING       WRITING -finish-> CANDIDATE    WRITING -cancel-> FAILED
CANDIDATE -cancel-> FAILED     CANDIDATE -install-> STAGED    STAGED -reboot-> UPDATED       STAGED -reboot-> FAILED
STAGED -reject-> FAILED        FAILED -clean-> READY          UPDATED -clean-> READY
WRITING -†-> READY             FAILED -‡-> READY              UPDATED -‡-> READY`,
			matrix: `
                 READY     WRITING    CANDIDATE  STAGED     FAILED     UPDATED'
start            WRITING   .          .          .          .          .
write            .         WRITING    .          .          .          .
finish           .         CANDIDATE  .          .          .          .
cancel           .         FAILED!0   FAILED!0   .          .          .
clean            .         .          .          .          READY      READY'
install          .         .          STAGED+R   .          .          .
accept           ..        ..         ..         ..         ..         ..
reject           .         .          .          FAILED!e   .          .
request-reboot   =         =          =          =          =          =
reboot           =         =†         =          UPDATED'   =‡         =‡
reboot-failing   =         =†         =          FAILED!g   =‡         =‡
reboot-bypassed  =         =†         =          CANDIDATE  =‡         =‡
service-restart  =         =          =          =          =          =`,
		},
		{
			name: "figure 10: no reboot", variant: Variant{Trial: true},
			arrows: `
READY -start-> WRITING         WRITING -write-> WRITING       WRITING -finish-> CANDIDATE    WRITING -cancel-> FAILED
CANDIDATE -cancel-> FAILED     CANDIDATE -install-> TRIAL     TRIAL -accept-> UPDATED        TRIAL -reject-> FAILED
FAILED -clean-> READY          UPDATED -clean-> READY
WRITING -†-> READY             FAILED -‡-> READY              UPDATED -‡-> READY`,
			matrix: `
                 READY     WRITING    CANDIDATE  FAILED     TRIAL'       UPDATED'
start            WRITING   .          .          .          .            .
write            .         WRITING    .          .          .            .
finish           .         CANDIDATE  .          .          .            .
cancel           .         FAILED!0   FAILED!0   .          .            .
clean            .         .          .          READY      .            READY'
install          .         .          TRIAL'     .          .            .
accept           .         .          .          .          UPDATED'     .
reject           .         .          .          .          FAILED!e     .
request-reboot   =         =          =          =          =            =
reboot           =         =†         =          =‡         =            =‡
reboot-failing   =         =†         =          =‡         =            =‡
reboot-bypassed  =         =†         =          =‡         =            =‡
service-restart  =         =          =          =          =            =`,
		},
		{
			name: "figure 11: no reboot, no trial", variant: Variant{},
			arrows: `
READY -start-> WRITING         WRITING -write-> WRITING       WRITING -finish-> CANDIDATE    WRITING -cancel-> FAILED
CANDIDATE -cancel-> FAILED     CANDIDATE -install-> UPDATED   FAILED -clean-> READY          UPDATED -clean-> READY
WRITING -†-> READY             FAILED -‡-> READY              UPDATED -‡-> READY`,
			matrix: `
                 READY     WRITING    CANDIDATE  FAILED     UPDATED'
start            WRITING   .          .          .          .
write            .         WRITING    .          .          .
finish           .         CANDIDATE  .          .          .
cancel           .         FAILED!0   FAILED!0   .          .
clean            .         .          .          READY      READY'
install          .         .          UPDATED'   .          .
accept           ..        ..         ..         ..         ..
reject           ..        ..         ..         ..         ..
request-reboot   =         =          =          =          =
reboot           =         =†         =          =‡         =‡
reboot-failing   =         =†         =          =‡         =‡
reboot-bypassed  =         =†         =          =‡         =‡
service-restart  =         =          =          =          =`,
		},
		{
			name: "figure 12: volatile staging", variant: Variant{Reboot: true, Trial: true, Volatile: true},
			arrows: `
READY -start-> WRITING         WRITING -write-> WRITING       WRITING -finish-> CANDIDATE    WRITING -cancel-> FAILED
CANDIDATE -cancel-> FAILED     CANDIDATE -install-> STAGED    STAGED -reboot-> TRIAL         STAGED -reboot-> READY
STAGED -reject-> FAILED        FAILED -clean-> READY          TRIAL -accept-> UPDATED        TRIAL -reject-> REJECTED
TRIAL -reboot-> READY          REJECTED -reboot-> READY       UPDATED -clean-> READY
WRITING -†-> READY             CANDIDATE -†-> READY           FAILED -‡-> READY              UPDATED -‡-> READY`,
			matrix: `
                 READY     WRITING    CANDIDATE  STAGED     FAILED     TRIAL'       REJECTED'    UPDATED'
start            WRITING   .          .          .          .          .            .            .
write            .         WRITING    .          .          .          .            .            .
finish           .         CANDIDATE  .          .          .          .            .            .
cancel           .         FAILED!0   FAILED!0   .          .          .            .            .
clean            .         .          .          .          READY      .            .            READY'
install          .         .          STAGED+R   .          .          .            .            .
accept           .         .          .          .          .          UPDATED'     .            .
reject           .         .          .          FAILED!e   .          REJECTED'!e+R .           .
request-reboot   =         =          =          =          =          =            =            =
reboot           =         READY      READY      TRIAL'     READY      READY        READY        READY'
reboot-failing   =         READY      READY      READY      READY      READY        READY        READY'
reboot-bypassed  =         READY      READY      READY      READY      REJECTED'!g  =            READY'
service-restart  =         =          =          =          =          =            =            =`,
		},
		{
			name: "figure 13: volatile staging, no trial", variant: Variant{Reboot: true, Volatile: true},
			arrows: `
READY -start-> WRITING         WRITING -write-> WRITING       WRITING -finish-> CANDIDATE    WRITING -cancel-> FAILED
CANDIDATE -cancel-> FAILED     CANDIDATE -install-> STAGED    STAGED -reboot-> READY'        STAGED -reboot-> READY
STAGED -reject-> FAILED        FAILED -clean-> READY
WRITING -†-> READY             CANDIDATE -†-> READY           FAILED -‡-> READY`,
			matrix: `
                 READY     WRITING    CANDIDATE  STAGED     FAILED
start            WRITING   .          .          .          .
write            .         WRITING    .          .          .
finish           .         CANDIDATE  .          .          .
cancel           .         FAILED!0   FAILED!0   .          .
clean            .         .          .          .          READY
install          .         .          STAGED+R   .          .
accept           ..        ..         ..         ..         ..
reject           .         .          .          FAILED!e   .
request-reboot   =         =          =          =          =
reboot           =         READY      READY      READY'     READY
reboot-failing   =         READY      READY      READY      READY
reboot-bypassed  =         READY      READY      READY      READY
service-restart  =         =          =          =          =`,
		},
		{
			name: "figure 14: volatile staging, no reboot", variant: Variant{Trial: true, Volatile: true},
			arrows: `
READY -start-> WRITING         WRITING -write-> WRITING       WRITING -finish-> CANDIDATE    WRITING -cancel-> FAILED
CANDIDATE -cancel-> FAILED     CANDIDATE -install-> TRIAL     TRIAL -accept-> UPDATED        TRIAL -reject-> FAILED
FAILED -clean-> READY          UPDATED -clean-> READY
WRITING -†-> READY             CANDIDATE -†-> READY           FAILED -‡-> READY              UPDATED -‡-> READY
TRIAL -*-> READY`,
			matrix: `
                 READY     WRITING    CANDIDATE  FAILED     TRIAL'       UPDATED'
start            WRITING   .          .          .          .            .
write            .         WRITING    .          .          .            .
finish           .         CANDIDATE  .          .          .            .
cancel           .         FAILED!0   FAILED!0   .          .            .
clean            .         .          .          READY      .            READY'
install          .         .          TRIAL'     .          .            .
accept           .         .          .          .          UPDATED'     .
reject           .         .          .          .          FAILED!e     .
request-reboot   =         =          =          =          =            =
reboot           =         READY      READY      READY      READY        READY'
reboot-failing   =         READY      READY      READY      READY        READY'
reboot-bypassed  =         READY      READY      READY      READY        READY'
service-restart  =         =          =          =          =            =`,
		},
		{
			name: "figure 15: volatile staging, no reboot, no trial", variant: Variant{Volatile: true},
			arrows: `
READY -start-> WRITING         WRITING -write-> WRITING       WRITING -finish-> CANDIDATE    WRITING -cancel-> FAILED
CANDIDATE -cancel-> FAILED     CANDIDATE -install-> UPDATED   FAILED -clean-> READY          UPDATED -clean-> READY
WRITING -†-> READY             CANDIDATE -†-> READY           FAILED -‡-> READY              UPDATED -‡-> READY`,
			matrix: `
                 READY     WRITING    CANDIDATE  FAILED     UPDATED'
start            WRITING   .          .          .          .
write            .         WRITING    .          .          .
finish           .         CANDIDATE  .          .          .
cancel           .         FAILED!0   FAILED!0   .          .
clean            .         .          .          READY      READY'
install          .         .          UPDATED'   .          .
accept           ..        ..         ..         ..         ..
reject           ..        ..         ..         ..         ..
request-reboot   =         =          =          =          =
reboot           =         READY      READY      READY      READY'
reboot-failing   =         READY      READY      READY      READY'
reboot-bypassed  =         READY      READY      READY      READY'
service-restart  =         =          =          =          =`,
		},
	}
}

// sectionOf says where the specification defines a line of the matrix.
func sectionOf(event string) string {
	switch event {
	case "start", "write", "finish", "cancel", "clean":
		return "4.2.3, 5.6.1"
	case "install", "reject", "request-reboot":
		return "4.2.3, 5.6.2"
	case "accept":
		return "4.2.3, 5.6.3"
	case "service-restart":
		return "4.2.2"
	}
	return "4.2.2, 4.6, C"
}

// place is a state, and whether the new image is active in it.
type place struct {
	state fwu.State
	fresh bool
}

func (p place) String() string {
	if p.fresh {
		return p.state.String() + "'"
	}
	return p.state.String()
}

func parsePlace(s string) (place, error) {
	name, fresh := strings.CutSuffix(s, "'")
	for st := fwu.Ready; st <= fwu.Updated; st++ {
		if st.String() == name {
			return place{st, fresh}, nil
		}
	}
	return place{}, fmt.Errorf("%q is no state", s)
}

// cell is one row of the table: what event does in from.
type cell struct {
	from   place
	event  string
	status []fwu.Status // any of them
	to     place
	err    byte // '0', 'g', 'e', or '=' if it stays what it was
	choice choice
}

// cells reads the matrix under a profile.
func (f figure) cells(p Profile) ([]cell, error) {
	lines := strings.Split(strings.TrimSpace(f.matrix), "\n")
	var from []place
	for _, w := range strings.Fields(lines[0]) {
		pl, err := parsePlace(w)
		if err != nil {
			return nil, err
		}
		from = append(from, pl)
	}
	var all []cell
	for _, line := range lines[1:] {
		words := strings.Fields(line)
		if len(words) != len(from)+1 {
			return nil, fmt.Errorf("%s: %q has not %d columns", f.name, line, len(from))
		}
		for i, w := range words[1:] {
			if f.skips(p, from[i].state) {
				continue
			}
			c, err := parseCell(p, from[i], words[0], w)
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", f.name, words[0], err)
			}
			if c.event == "request-reboot" && !f.variant.Reboot {
				c.status = append(c.status, fwu.NotSupported) // section 5.2.1: optional
			}
			all = append(all, c)
		}
	}
	return all, nil
}

// skips tells whether a state is never seen: the reboot that would end in it ends in READY.
func (f figure) skips(p Profile, s fwu.State) bool {
	return s == fwu.Updated && f.variant.Reboot && !f.variant.Trial && p.UpdatedVolatile
}

func parseCell(p Profile, from place, event, w string) (cell, error) {
	c := cell{from: from, event: event, status: []fwu.Status{fwu.Success}, to: from, err: '='}
	if event == "reboot-bypassed" {
		c.choice = choiceBypass
	}
	switch w {
	case ".":
		c.status = []fwu.Status{fwu.BadState}
		return c, nil
	case "..":
		c.status = []fwu.Status{p.Unused}
		return c, nil
	case "=†", "=‡":
		if p.lost(from.state) {
			c.to.state = fwu.Ready
		}
		return c, nil
	case "=":
		return c, nil
	}
	w, reboot := strings.CutSuffix(w, "+R")
	if reboot {
		c.status = []fwu.Status{fwu.SuccessReboot}
	}
	w, e, ok := strings.Cut(w, "!")
	if ok {
		c.err = e[0]
	}
	var err error
	if c.to, err = parsePlace(w); err != nil {
		return c, err
	}
	// Section 4.2.4: a reboot that would end in a volatile FAILED or UPDATED ends in READY.
	if strings.HasPrefix(event, "reboot") && p.lost(c.to.state) {
		c.to.state = fwu.Ready
	}
	return c, nil
}

// transition is an arrow of a figure.
type transition struct {
	variant Variant
	from    fwu.State
	event   string // a call, or "reboot"
	to      place
}

// transitionOf makes a transition of what was observed. Two arrows between the same states differ only where a reboot in STAGED ends in READY (figure 13).
func transitionOf(v Variant, from fwu.State, event string, to place) transition {
	if strings.HasPrefix(event, "reboot") {
		event = "reboot"
	}
	to.fresh = to.fresh && from == fwu.Staged && to.state == fwu.Ready
	return transition{v, from, event, to}
}

func (t transition) String() string {
	return fmt.Sprintf("%v: %v -%s-> %v", t.variant, t.from, t.event, t.to)
}

// transitions reads the arrows. One that a mark with the legend "optional" stands for is among them only if the profile says so; one that ends in
// a state which the profile makes volatile ends in READY.
func (f figure) transitions(p Profile) ([]transition, error) {
	words := strings.Fields(f.arrows)
	var all []transition
	for i := 0; i+2 < len(words); i += 3 {
		from, err := parsePlace(words[i])
		if err != nil {
			return nil, err
		}
		if f.skips(p, from.state) {
			continue
		}
		to, err := parsePlace(words[i+2])
		if err != nil {
			return nil, err
		}
		event := strings.TrimSuffix(strings.TrimPrefix(words[i+1], "-"), "->")
		if event == "†" || event == "‡" || event == "*" {
			if !f.variant.Volatile && !p.lost(from.state) {
				continue
			}
			event = "reboot"
		}
		if event == "reboot" && p.lost(to.state) {
			to = place{fwu.Ready, to.state == fwu.Updated}
		}
		all = append(all, transitionOf(f.variant, from.state, event, to))
	}
	return all, nil
}
