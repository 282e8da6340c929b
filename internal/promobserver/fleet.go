package promobserver

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rowtide/rowtide/localsync"
)

// Fleet tells of the web nodes what they report, whenever it is scraped.
type Fleet struct {
	read func() ([]localsync.NodeReport, error)

	mu    sync.Mutex
	last  time.Time // of the last look
	seen  map[uint64]map[series]uint64
	reads map[series]uint64
}

// startGrace is how long before the last look a node may have started and not have
// been seen: its report was on its way, or its clock is behind.
const startGrace = 10 * time.Second

type series struct {
	module string
	level  localsync.Level
}

var (
	nodesDesc    = prometheus.NewDesc("rowtide_nodes", "Web nodes that report.", nil, nil)
	degradedDesc = prometheus.NewDesc("rowtide_nodes_degraded", "Of them, those that hear nothing on a partition of the bus.", nil, nil)
	readsDesc    = prometheus.NewDesc("rowtide_nodes_reads_total", "Reads of all web nodes by the level that answered.", []string{"module", "level"}, nil)
)

// NewFleet registers the metrics. read gives the reports of the nodes that live;
// when it fails, nothing is told.
func NewFleet(reg prometheus.Registerer, read func() ([]localsync.NodeReport, error)) *Fleet {
	f := &Fleet{read: read, last: time.Now(), seen: map[uint64]map[series]uint64{}, reads: map[series]uint64{}}
	reg.MustRegister(f)
	return f
}

// Describe implements prometheus.Collector.
func (f *Fleet) Describe(ch chan<- *prometheus.Desc) {
	ch <- nodesDesc
	ch <- degradedDesc
	ch <- readsDesc
}

// Collect implements prometheus.Collector.
func (f *Fleet) Collect(ch chan<- prometheus.Metric) {
	nodes, err := f.read()
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.add(nodes)
	degraded := 0
	for i := range nodes {
		if nodes[i].Degraded {
			degraded++
		}
	}
	ch <- prometheus.MustNewConstMetric(nodesDesc, prometheus.GaugeValue, float64(len(nodes)))
	ch <- prometheus.MustNewConstMetric(degradedDesc, prometheus.GaugeValue, float64(degraded))
	for s, n := range f.reads {
		ch <- prometheus.MustNewConstMetric(readsDesc, prometheus.CounterValue, float64(n), s.module, s.level.String())
	}
}

// add counts what the nodes have read since the last look. The sum of their own
// counters would fall whenever a node goes, which Prometheus takes for a restart
// of all of them.
func (f *Fleet) add(nodes []localsync.NodeReport) {
	seen := make(map[uint64]map[series]uint64, len(nodes))
	for i := range nodes {
		n := &nodes[i]
		before, known := f.seen[n.Instance]
		now := map[series]uint64{}
		for j := range n.Modules {
			for level, reads := range n.Modules[j].ByLevel() {
				now[series{n.Modules[j].Name, level}] += reads
			}
		}
		for s, reads := range now {
			switch {
			case known && reads >= before[s]:
				f.reads[s] += reads - before[s]
			case !known && n.Started.After(f.last.Add(-startGrace)):
				f.reads[s] += reads
			default:
				f.reads[s] += 0 // it read before anybody looked
			}
		}
		seen[n.Instance] = now
	}
	f.seen, f.last = seen, time.Now()
}
