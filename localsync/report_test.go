package localsync_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2/server"

	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/localsync"
)

func nodes(t *testing.T, n *node) []localsync.NodeReport {
	t.Helper()
	got, err := localsync.Nodes(t.Context(), n.rdb, "rowtide")
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func reporting(name string, log *testenv.Log) func(*localsync.Options) {
	return func(o *localsync.Options) {
		o.Node, o.ReportEvery = name, 2*time.Millisecond
		o.Logger = slog.New(slog.NewTextHandler(log, nil))
	}
}

func TestReport_TellsStatsUntilClose(t *testing.T) {
	n := newNode(t, reporting("web-1", &testenv.Log{}))
	m := n.events(newOrigin())
	n.commit(1, 10, "one")
	want(t, m, 1, "one")
	var r localsync.NodeReport
	eventually(t, "the read is told", func() bool {
		got := nodes(t, n)
		if len(got) != 1 || len(got[0].Modules) != 1 {
			return false
		}
		r = got[0]
		return r.Modules[0].Redis == 1
	})
	if r.Node != "web-1" || r.Format != localsync.ReportFormat || r.Instance == 0 || r.Degraded || r.Store.Entries != 1 || r.Bus.Partitions != 4 || r.Bus.ByPartition != nil {
		t.Errorf("report %+v", r)
	}
	if !r.At.Equal(n.clock.Now()) || !r.Started.Equal(n.clock.Now()) {
		t.Errorf("report of %v, started %v, want %v", r.At, r.Started, n.clock.Now())
	}
	for _, k := range n.mr.Keys() {
		if strings.Contains(k, "~report") && n.mr.TTL(k) <= 0 {
			t.Errorf("%s would live for ever", k)
		}
	}
	n.silence(localsync.DefaultSilence + time.Second)
	eventually(t, "the node is told as degraded", func() bool {
		got := nodes(t, n)
		return len(got) == 1 && got[0].Degraded
	})

	if err := n.cache.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.mr.FastForward(time.Millisecond)
	if got := nodes(t, n); len(got) != 0 {
		t.Errorf("after Close %+v is still told", got)
	}
	sets := n.commands("SET")
	if sets < 2 || n.commands("DEL")+n.commands("EXPIRE") != 0 {
		t.Errorf("%d SET, %d DEL, %d EXPIRE; want only SET", sets, n.commands("DEL"), n.commands("EXPIRE"))
	}
}

func TestReport_SwitchedOffWritesNothing(t *testing.T) {
	n := newNode(t, func(o *localsync.Options) { o.ReportEvery = -1 })
	want(t, n.events(newOrigin()), 1, "")
	if err := n.cache.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n.commands("SET") != 0 || len(nodes(t, n)) != 0 {
		t.Error("a node that is not to report wrote to Redis")
	}
}

func TestReport_ReadOnlyRedisIsToldOnceAndReadsGoOn(t *testing.T) {
	log := &testenv.Log{}
	n := newNode(t, reporting("web-1", log))
	m := n.events(newOrigin())
	eventually(t, "a report", func() bool { return len(nodes(t, n)) == 1 })
	var refused atomic.Int64
	n.mr.Server().SetPreHook(func(p *server.Peer, cmd string, _ ...string) bool {
		if cmd != "SET" {
			return false
		}
		refused.Add(1)
		p.WriteError("NOPERM this user has no permissions to run the 'set' command")
		return true
	})
	eventually(t, "several refused reports", func() bool { return refused.Load() > 5 })
	n.mr.Server().SetPreHook(n.intercept)
	eventually(t, "reports again", func() bool { return strings.Count(log.String(), "reports to redis again") == 1 })
	if got := strings.Count(log.String(), "cannot report"); got != 1 {
		t.Errorf("the refusal was told %d times", got)
	}
	n.commit(1, 10, "one")
	want(t, m, 1, "one")
}

// However many nodes begin at once, each ends with a place of its own.
func TestReport_NodesTakeDifferentPlaces(t *testing.T) {
	first := newNode(t)
	const fleet = 12
	for i := range fleet {
		newNode(t, reporting(fmt.Sprintf("web-%02d", i), &testenv.Log{}), func(o *localsync.Options) { o.Redis = first.rdb })
	}
	for range 3 { // stays so
		eventually(t, "all nodes are told", func() bool { return len(nodes(t, first)) == fleet })
	}
	got := nodes(t, first)
	for i, r := range got {
		if want := fmt.Sprintf("web-%02d", i); r.Node != want {
			t.Errorf("node %d of %d is %s, want %s", i, len(got), r.Node, want)
		}
	}
}

func TestReport_LeavesATakenPlaceAlone(t *testing.T) {
	n := newNode(t)
	taken := map[string]string{}
	for i := range 1024 {
		if i%4 == 3 {
			continue // three of four are taken, some by nodes of a newer format
		}
		b, err := json.Marshal(map[string]any{"format": 1 + i%2, "node": "other", "instance": fmt.Sprint(i + 1)})
		if err != nil {
			t.Fatal(err)
		}
		key := fmt.Sprintf("rowtide:~report:%d", i)
		taken[key] = string(b)
		if err := n.mr.Set(key, string(b)); err != nil {
			t.Fatal(err)
		}
	}
	late := newNode(t, reporting("late", &testenv.Log{}), func(o *localsync.Options) { o.Redis = n.rdb })
	eventually(t, "the late node is told", func() bool {
		for _, r := range nodes(t, n) {
			if r.Node == "late" {
				return true
			}
		}
		return false
	})
	if err := late.cache.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for key, want := range taken {
		if got, err := n.mr.Get(key); err != nil || got != want {
			t.Errorf("%s of another node is now %q, %v", key, got, err)
		}
	}
}

func TestNodes_ErrorNamesWhatWasRead(t *testing.T) {
	n := newNode(t)
	n.mr.SetError("LOADING for a while")
	if _, err := localsync.Nodes(t.Context(), n.rdb, "rowtide"); err == nil || !strings.Contains(err.Error(), "reports of nodes") {
		t.Errorf("error %v", err)
	}
}
