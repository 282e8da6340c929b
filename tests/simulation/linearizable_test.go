package simulation

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/rowtide/rowtide/localsync"
)

const (
	histories  = 10_000
	perNode    = 250 // histories on one node, each with two keys of its own
	clients    = 8
	operations = 4 // of each client
	// Some histories are long, for what takes many hits, refreshes and changes of one
	// key to show.
	longEvery      = 25
	longOperations = 25
	// oneCheck bounds the check of one history, which takes a millisecond, or a tenth
	// of a second where the machine is busy.
	oneCheck = 20 * time.Second
)

// step is an operation on one register: a write of seq, or a read that gave it.
type step struct {
	id    int
	write bool
	seq   int
	stale bool
}

// register may give something older only if it says so.
var register = porcupine.Model{
	Partition: func(ops []porcupine.Operation) [][]porcupine.Operation {
		byID := map[int][]porcupine.Operation{}
		for _, op := range ops {
			id := op.Input.(step).id
			byID[id] = append(byID[id], op)
		}
		var out [][]porcupine.Operation
		for _, one := range byID {
			out = append(out, one)
		}
		return out
	},
	Init: func() any { return 0 },
	Step: func(state, in, out any) (bool, any) {
		switch s := out.(step); {
		case in.(step).write:
			return true, in.(step).seq
		case s.stale:
			return true, state
		default:
			return s.seq == state.(int), state
		}
	},
	DescribeOperation: func(in, out any) string {
		s := out.(step)
		if in.(step).write {
			return "commit " + itoa(s.seq)
		}
		if s.stale {
			return "read " + itoa(s.seq) + ", marked stale"
		}
		return "read " + itoa(s.seq)
	},
}

// TestLinearizable_OneNodeIsARegister checks random histories of one node: commits,
// reads of all kinds, of one key and of several, with decoded objects and without,
// loads that fail and that take their time, evictions, lost and repeated records.
func TestLinearizable_OneNodeIsARegister(t *testing.T) {
	n := checkHistories(t, *seedFlag, histories, off{})
	t.Logf("%d histories of %d clients, seed %d: %v", histories, clients, *seedFlag, n)
	if bad := n.bad.Load(); bad > 0 {
		t.Errorf("%d of %d histories are not linearizable", bad, histories)
	}
	if n.undecided.Load() > 0 {
		t.Errorf("%d histories could not be decided in %v each", n.undecided.Load(), oneCheck)
	}
	// What is marked may be anything that ever was: a node that marked all it gives
	// would pass, so most of the reads have to be plain.
	if plain, all := n.plain.Load(), n.plain.Load()+n.marked.Load()+n.failed.Load(); 2*plain < all {
		t.Errorf("%d of %d reads are plain, want half of them at least", plain, all)
	}
	for _, l := range []localsync.Level{localsync.LevelObject, localsync.LevelLocal, localsync.LevelRedis, localsync.LevelLoader} {
		if got := n.levels[l].Load(); got < histories/10 {
			t.Errorf("%d plain reads were answered by level %v, want %d at least", got, l, histories/10)
		}
	}
	if n.degraded.Load() > 0 {
		t.Errorf("%d reads are degraded although the bus is heard all the time", n.degraded.Load())
	}
	if got := n.pages.Load(); got < histories/10 {
		t.Errorf("%d plain reads are of pages, want %d at least", got, histories/10)
	}
}

func TestLinearizable_FailsWithoutFloors(t *testing.T) {
	bad := checkHistories(t, *seedFlag, histories/10, off{floors: true}).bad.Load()
	t.Logf("%d of %d histories are not linearizable", bad, histories/10)
	if bad == 0 {
		t.Error("no history shows that invalidations of absent keys are forgotten")
	}
}

// counts say what became of histories, and what their reads were.
type counts struct {
	bad, undecided        atomic.Int64
	plain, marked, failed atomic.Int64
	degraded              atomic.Int64                            // of the marked ones; none, or pages would be judged by less than Stale and Degraded
	pages                 atomic.Int64                            // plain reads of GetMany
	levels                [localsync.LevelLoader + 1]atomic.Int64 // that gave the other plain ones
}

func (n *counts) String() string {
	return fmt.Sprintf("%d not linearizable, %d undecided; reads: %d plain, %d marked, %d failed; of the plain ones by GetMany %d, object %d, local %d, redis %d, loader %d",
		n.bad.Load(), n.undecided.Load(), n.plain.Load(), n.marked.Load(), n.failed.Load(), n.pages.Load(), n.levels[localsync.LevelObject].Load(),
		n.levels[localsync.LevelLocal].Load(), n.levels[localsync.LevelRedis].Load(), n.levels[localsync.LevelLoader].Load())
}

func checkHistories(t *testing.T, seed uint64, n int, o off) *counts {
	t.Helper()
	var sum counts
	var g sync.WaitGroup
	for from := 0; from < n; from += perNode {
		var all [][]porcupine.Operation
		var stories []string
		synctest.Test(t, func(t *testing.T) {
			r := usual()
			r.keys, r.redisTime, r.partitions = 2*perNode, 200*time.Microsecond, 2
			w := &world{rates: r, seed: seed + uint64(from), off: o, start: time.Now()}
			all = newScene(t, w, &sum).play()
			for id := range 2 * perNode {
				stories = append(stories, w.trace.story(id, 0))
			}
		})
		g.Go(func() { // beside the next bubble
			for i, ops := range all {
				switch porcupine.CheckOperationsTimeout(register, ops, oneCheck) {
				case porcupine.Ok:
					if madeUp(ops) == "" {
						continue
					}
				case porcupine.Unknown:
					sum.undecided.Add(1)
					continue
				case porcupine.Illegal:
				}
				if sum.bad.Add(1) == 1 && o == (off{}) {
					t.Logf("history %d of seed %d:%s%s", i, seed+uint64(from), describe(ops), madeUp(ops))
					t.Log(stories[2*i], stories[2*i+1])
				}
			}
		})
	}
	g.Wait()
	return &sum
}

// madeUp is the first read that gave what nobody had begun to commit when it ended.
// The model sees to those that are plain; this holds for marked ones, too.
func madeUp(ops []porcupine.Operation) string {
	began := map[[2]int]int64{} // by id and seq
	for _, op := range ops {
		if in := op.Input.(step); in.write {
			began[[2]int{in.id, in.seq}] = op.Call
		}
	}
	for _, op := range ops {
		in, out := op.Input.(step), op.Output.(step)
		if at, ok := began[[2]int{in.id, out.seq}]; out.seq > 0 && (!ok || at > op.Return) {
			return "\n  nobody had committed " + itoa(out.seq) + " of key " + itoa(in.id) + " when it was read"
		}
	}
	return ""
}

func describe(ops []porcupine.Operation) string {
	s := ""
	for _, op := range ops {
		s += "\n  client " + itoa(op.ClientId) + " " + itoa(int(op.Call)) + "-" + itoa(int(op.Return)) + " key " + itoa(op.Input.(step).id) + ": " +
			register.DescribeOperation(op.Input, op.Output)
	}
	return s
}
