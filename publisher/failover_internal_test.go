package publisher

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// step is an answer of the primaries; point is what had been saved before it.
type step struct {
	point int
	now   []lineage
}

func TestFailover_Verdicts(t *testing.T) {
	a := lineage{addr: "a", run: "ra", id: "A"}
	at := func(l lineage, offset int64) lineage {
		l.offset = offset
		return l
	}
	promoted := func(addr, run, id, former string, end int64) lineage {
		return lineage{addr: addr, run: run, id: id, former: former, formerEnd: end, offset: end}
	}
	past := []step{{1, []lineage{at(a, 100)}}, {2, []lineage{at(a, 200)}}, {3, []lineage{at(a, 300)}}}
	for _, tt := range []struct {
		name  string
		past  []step
		now   []lineage
		why   string // empty: nothing is lost
		point int    // 0: none is known
	}{
		{"goes on", past, []lineage{at(a, 301)}, "", 0},
		{"stands still", past, []lineage{at(a, 300)}, "", 0},
		{"goes back", past, []lineage{at(a, 250)}, "gone back", 2},
		{"promoted with all", past, []lineage{promoted("b", "rb", "B", "A", 301)}, "took over", 3},
		{"promoted with some", past, []lineage{promoted("b", "rb", "B", "A", 201)}, "took over", 2},
		{"promoted one byte short", past, []lineage{promoted("b", "rb", "B", "A", 200)}, "took over", 1},
		{"promoted with nothing known", past, []lineage{promoted("b", "rb", "B", "A", 50)}, "took over", 0},
		{"first replica came", past, []lineage{{addr: "a", run: "ra", id: "A2"}}, "", 0},
		{"restarted empty", past, []lineage{{addr: "a", run: "ra2", id: "X"}}, "started again", 0},
		{"restarted from its file", past, []lineage{promoted("a", "ra2", "X", "A", 201)}, "took over", 2},
		{"demoted, refilled and promoted", past, []lineage{promoted("a", "ra", "X", "C", 999)}, "another server's data", 0},
		{"promoted twice", past, []lineage{promoted("c", "rc", "C", "B", 400)}, "none that is says", 0},
		{"tells nothing", []step{{1, []lineage{{addr: "a"}}}}, []lineage{{addr: "a"}}, "", 0},
		{"two shards fail, the worse counts", []step{
			{1, []lineage{at(a, 100), {addr: "m", run: "rm", id: "M", offset: 10}}},
			{2, []lineage{at(a, 200), {addr: "m", run: "rm", id: "M", offset: 20}}},
		}, []lineage{promoted("b", "rb", "B", "A", 201), promoted("n", "rn", "N", "M", 11)}, "took over", 1},
		{"another shard joined", past, []lineage{at(a, 300), {addr: "m", run: "rm", id: "M"}}, "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := NewFailover[int](nil, slog.New(slog.DiscardHandler))
			for i, s := range tt.past {
				f.note(s.now, &s.point)
				for _, p := range f.known { // as if a second had passed
					for j := range p.marks {
						p.marks[j].at = p.marks[j].at.Add(-time.Duration(len(tt.past)-i) * failoverEvery)
					}
				}
			}
			err := f.compare(tt.now)
			switch {
			case tt.why == "" && err == nil:
			case err == nil, tt.why == "", !strings.Contains(err.Error(), tt.why):
				t.Errorf("verdict %v, want %q", err, tt.why)
			case !errors.Is(err, ErrRewound):
				t.Errorf("%v is not ErrRewound", err)
			case tt.point == 0 && err.Point != nil:
				t.Errorf("point %d, want none", *err.Point)
			case tt.point != 0 && (err.Point == nil || *err.Point != tt.point):
				t.Errorf("point %v, want %d", err.Point, tt.point)
			}
		})
	}
}

func TestFailover_MemoryIsBounded(t *testing.T) {
	f := NewFailover[int](nil, slog.New(slog.DiscardHandler))
	for i := range 3 * failoverMemory {
		f.note([]lineage{{addr: "a", run: "r", id: "A", offset: int64(i)}}, &i)
		marks := f.known["A"].marks
		marks[len(marks)-1].at = time.Now().Add(-failoverEvery)
	}
	if n := len(f.known["A"].marks); n != failoverMemory {
		t.Errorf("%d marks, want %d", n, failoverMemory)
	}
}
