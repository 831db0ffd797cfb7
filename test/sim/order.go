package sim

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Order decides in which order the media get the accesses that several goroutines make at once.
// Every access waits until all goroutines of the run wait for something; then one of the accesses
// that wait is made. So no two are made at the same time, and a seed gives the same order each
// time.
type Order struct {
	rand *rand.Rand

	mu      sync.Mutex
	waiting []request
	ended   bool
}

type request struct {
	Access
	medium int
	begin  chan struct{}
}

// maxIdle bounds how often all goroutines may wait although no access does: for a timer, whose time
// comes at once.
const maxIdle = 1000

// InOrder runs f, and has Order choose by seed. All media that f uses have to be given the Order,
// and all goroutines that f begins have to end. Time does not pass meanwhile.
func InOrder(t *testing.T, seed uint64, f func(*Order)) {
	synctest.Test(t, func(*testing.T) {
		o := &Order{rand: rand.New(rand.NewPCG(seed, 1))}
		go func() {
			defer o.end()
			f(o)
		}()
		for idle := 0; ; {
			synctest.Wait()
			begun, ended := o.next()
			switch {
			case ended:
				return
			case begun:
				idle = 0
			case idle == maxIdle:
				panic("sim: everything waits, and nothing for a medium")
			default:
				idle++
				time.Sleep(time.Second)
			}
		}
	})
}

func (o *Order) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
}

// next lets one access be made, if any waits.
func (o *Order) next() (begun, ended bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waiting) == 0 {
		return false, o.ended
	}
	// They came in an order that depends on the processors.
	slices.SortFunc(o.waiting, func(a, b request) int {
		return cmp.Or(cmp.Compare(a.medium, b.medium), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Off, b.Off), cmp.Compare(a.Len, b.Len))
	})
	i := o.rand.IntN(len(o.waiting))
	close(o.waiting[i].begin)
	o.waiting = slices.Delete(o.waiting, i, i+1)
	return true, false
}

// wait returns when it is the access's turn.
func (o *Order) wait(medium int, a Access) {
	if o == nil {
		return
	}
	r := request{a, medium, make(chan struct{})}
	o.mu.Lock()
	o.waiting = append(o.waiting, r)
	o.mu.Unlock()
	<-r.begin
}
