package promobserver_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/rowtide/rowtide/internal/promobserver"
	"github.com/rowtide/rowtide/localsync"
)

func TestFleet_ReadsNeverGoBackWhenNodesComeAndGo(t *testing.T) {
	var nodes []localsync.NodeReport
	var fault error
	reg := prometheus.NewPedanticRegistry()
	promobserver.NewFleet(reg, func() ([]localsync.NodeReport, error) { return nodes, fault })
	node := func(instance, local, redis uint64, age time.Duration) localsync.NodeReport {
		return localsync.NodeReport{Instance: instance, Started: time.Now().Add(-age), Degraded: instance == 2, Stats: localsync.Stats{
			Modules: []localsync.ModuleStats{{Name: "event", Version: 1, Local: local}, {Name: "event", Version: 2, Redis: redis}},
		}}
	}
	want := func(text string) {
		t.Helper()
		metrics := "rowtide_nodes"
		err := testutil.GatherAndCompare(reg, strings.NewReader(text), metrics, "rowtide_nodes_degraded")
		if err != nil {
			t.Error(err)
		}
	}
	reads := func(local, redis float64) {
		t.Helper()
		got := map[string]float64{}
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == "rowtide_nodes_reads_total" {
					got[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
				}
			}
		}
		if got["local"] != local || got["redis"] != redis {
			t.Errorf("reads %v, want %v local, %v redis", got, local, redis)
		}
	}

	nodes = []localsync.NodeReport{node(1, 100, 10, time.Hour), node(2, 5, 1, 0)}
	reads(5, 1) // the first read long before anybody looked
	want("# HELP rowtide_nodes Web nodes that report.\n# TYPE rowtide_nodes gauge\nrowtide_nodes 2\n" +
		"# HELP rowtide_nodes_degraded Of them, those that hear nothing on a partition of the bus.\n# TYPE rowtide_nodes_degraded gauge\nrowtide_nodes_degraded 1\n")
	nodes = []localsync.NodeReport{node(1, 130, 10, time.Hour), node(2, 7, 1, 0)}
	reads(37, 1)
	nodes = nodes[:1]
	reads(37, 1)
	nodes = append(nodes, node(3, 2, 2, 0))
	reads(39, 3)
	fault = errors.New("redis is away")
	if n, err := testutil.GatherAndCount(reg); n != 0 || err != nil {
		t.Errorf("%d metrics without Redis, %v", n, err)
	}
	fault = nil
	reads(39, 3)
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}
