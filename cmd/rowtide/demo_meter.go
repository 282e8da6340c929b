package main

import (
	"slices"
	"sync"
	"time"

	"github.com/rowtide/rowtide"
)

// meter measures commit -> node: from the moment a COMMIT returned to its writer
// to the moment a node had raised the key's floor, on one clock, per node.
type meter struct {
	mu      sync.Mutex
	pending map[rowtide.Key]*flight
	heard   [demoNodes]map[rowtide.Key]rowtide.Version // the newest
	recent  []time.Duration                            // since the last report
	all     []time.Duration
}

// flight is one sampled change on its way.
type flight struct {
	committed time.Time
	arrived   [demoNodes]time.Time
}

func newMeter() *meter {
	m := &meter{pending: map[rowtide.Key]*flight{}}
	for i := range m.heard {
		m.heard[i] = map[rowtide.Key]rowtide.Version{}
	}
	return m
}

// begin announces that k is about to be committed; it must not be under way
// already, or an earlier change would be taken for this one.
func (m *meter) begin(k rowtide.Key) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pending[k] != nil {
		return false
	}
	m.pending[k] = &flight{}
	return true
}

// committed says that the COMMIT has returned; ok false takes begin back.
func (m *meter) committed(k rowtide.Key, at time.Time, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.pending[k]
	if !ok {
		delete(m.pending, k)
		return
	}
	f.committed = at
	m.settle(k, f)
}

// applied says that a node has heard that k has version v. That can be before COMMIT
// returns, and comes twice as a rule: by a hint, and by Kafka.
func (m *meter) applied(node int, k rowtide.Key, v rowtide.Version) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v <= m.heard[node][k] {
		return
	}
	m.heard[node][k] = v
	f := m.pending[k]
	if f == nil || !f.arrived[node].IsZero() {
		return
	}
	f.arrived[node] = time.Now()
	m.settle(k, f)
}

func (m *meter) settle(k rowtide.Key, f *flight) {
	if f.committed.IsZero() {
		return
	}
	for _, at := range f.arrived {
		if at.IsZero() {
			return
		}
	}
	for _, at := range f.arrived {
		d := max(at.Sub(f.committed), 0)
		m.recent = append(m.recent, d)
		m.all = append(m.all, d)
	}
	delete(m.pending, k)
}

// report returns percentiles since the last report, and the age of the oldest
// change that has not reached every node.
func (m *meter) report() (p50, p99, lag time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.pending {
		if !f.committed.IsZero() {
			lag = max(lag, time.Since(f.committed))
		}
	}
	p50, p99 = percentile(m.recent, 50), percentile(m.recent, 99)
	m.recent = m.recent[:0]
	return p50, p99, lag
}

// total returns the percentiles of the whole run, the number of samples, and how
// many committed changes never reached some node.
func (m *meter) total() (p50, p99 time.Duration, n, missing int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.pending {
		if !f.committed.IsZero() {
			missing++
		}
	}
	return percentile(m.all, 50), percentile(m.all, 99), len(m.all), missing
}

// percentile is the nearest-rank p-th percentile; it sorts d.
func percentile(d []time.Duration, p int) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[min(len(d)*p/100, len(d)-1)]
}
