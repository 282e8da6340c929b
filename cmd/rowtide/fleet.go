package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide/internal/promobserver"
	"github.com/rowtide/rowtide/localsync"
)

// fleet is what the web nodes under the daemon's prefix tell of themselves.
type fleet struct {
	rdb    redis.UniversalClient
	prefix string

	mu    sync.Mutex // held while Redis is read: one look at a time
	at    time.Time
	nodes []localsync.NodeReport
	err   error
}

const (
	// fleetAge is how old an answer may be. Nodes report every 5 s.
	fleetAge = time.Second
	// fleetPatience bounds an answer: whoever asks how the daemon is must not wait
	// for a Redis that hangs.
	fleetPatience = time.Second
)

func newFleet(rdb redis.UniversalClient, prefix string, reg prometheus.Registerer) *fleet {
	f := &fleet{rdb: rdb, prefix: prefix}
	promobserver.NewFleet(reg, func() ([]localsync.NodeReport, error) { return f.read(context.Background()) })
	return f
}

var errSlow = errors.New("redis does not answer in time")

// read gives the reports of the nodes that live, within a second.
func (f *fleet) read(ctx context.Context) ([]localsync.NodeReport, error) {
	type answer struct {
		nodes []localsync.NodeReport
		err   error
	}
	got := make(chan answer, 1)
	go func() {
		nodes, err := f.look(context.WithoutCancel(ctx))
		got <- answer{nodes, err}
	}()
	select {
	case a := <-got:
		return a.nodes, a.err
	case <-time.After(fleetPatience):
		return nil, errSlow
	}
}

func (f *fleet) look(ctx context.Context) ([]localsync.NodeReport, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.at) < fleetAge {
		return f.nodes, f.err
	}
	ctx, cancel := context.WithTimeout(ctx, fleetPatience)
	defer cancel()
	f.nodes, f.err = localsync.Nodes(ctx, f.rdb, f.prefix)
	f.at = time.Now() // a failure too answers those who waited for it
	return f.nodes, f.err
}

// nodesDocument is what GET /admin/nodes serves.
type nodesDocument struct {
	Nodes    []localsync.NodeReport `json:"nodes"`
	Degraded int                    `json:"degraded"`
}

func degraded(nodes []localsync.NodeReport) int {
	n := 0
	for i := range nodes {
		if nodes[i].Degraded {
			n++
		}
	}
	return n
}

// serve is GET /admin/nodes.
func (f *fleet) serve(w http.ResponseWriter, r *http.Request) {
	nodes, err := f.read(r.Context())
	if err != nil {
		writeText(w, http.StatusServiceUnavailable, err.Error(), "the nodes report to the daemon's redis: /readyz says how it is")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(nodesDocument{nodes, degraded(nodes)}) // the reader has gone away
}

// show adds the nodes to a status, if Redis tells them.
func (f *fleet) show(ctx context.Context, s *status) {
	if nodes, err := f.read(ctx); err == nil {
		n, d := len(nodes), degraded(nodes)
		s.Nodes, s.NodesDegraded = &n, &d
	}
}
