//go:build integration

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/stockapi"
)

// runParts runs the shop's daemon and stock API until the returned function is
// called.
func runParts(t *testing.T, s *shop) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	errs := make(chan error, 2)
	go func() { errs <- s.daemon.run(ctx) }()
	go func() { errs <- s.stock.run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := errors.Join(<-errs, <-errs); err != nil {
				t.Errorf("a part of the shop failed: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// The whole loop on real servers, Apache Kafka included, while both the daemon
// and the stock API are killed five times: afterwards Redis equals the database,
// every unit and every answered hold is accounted for, and the display entry of
// the stock has come back round.
func TestShop_KilledFiveTimesEndsWithNoDifference(t *testing.T) {
	starts := map[string]func(context.Context, testenv.Options) (*testenv.SQLServer, error){
		testenv.FlavorMariaDB: testenv.StartMariaDB, testenv.FlavorMySQL: testenv.StartMySQL,
	}
	for _, target := range testenv.SQLServers(t) {
		t.Run(target.Flavor, func(t *testing.T) {
			s := privateShop(t, starts[target.Flavor])
			shopUnderKills(t, s)
		})
	}
}

// privateShop is a seeded shop on private servers and the shared Kafka, with its
// configs written and nothing running.
func privateShop(t *testing.T, start func(context.Context, testenv.Options) (*testenv.SQLServer, error)) *shop {
	t.Helper()
	dir, err := inTempFolder()
	if err != nil {
		t.Fatal(err)
	}
	e := &demoEnv{dir: dir, brokers: testenv.Kafka(t)}
	t.Cleanup(func() { _ = e.stop() })
	if e.sql, err = start(t.Context(), testenv.Options{}); err != nil {
		t.Fatal(err)
	}
	e.onStop(e.sql.Server)
	if e.redis, err = testenv.StartRedis(t.Context(), testenv.Options{}); err != nil {
		t.Fatal(err)
	}
	e.onStop(e.redis.Server)
	s := newShop(e, io.Discard, 5000, 500)
	t.Cleanup(func() { _ = s.close() })
	if err := s.seed(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func shopUnderKills(t *testing.T, s *shop) {
	daemonFile, stockFile := filepath.Join(s.env.dir, "rowtide.yaml"), filepath.Join(s.env.dir, "stock.yaml")
	ctx, cancel := context.WithCancel(t.Context())
	var changes atomic.Int64
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(5, uint64(w)))
			for i := 0; ctx.Err() == nil; i++ {
				if s.change(ctx, rng, uint64(1+(i*4+w)%shopEvents)) == nil {
					changes.Add(1)
				}
			}
		})
	}
	client := &http.Client{Timeout: 2 * time.Second}
	for b := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(6, uint64(b)))
			for i := 0; ctx.Err() == nil; i++ {
				// Refused connections while the API is down are failures the buyer sees.
				s.purchase(context.WithoutCancel(ctx), client, rng, fmt.Sprintf("%d-%d", b, i), s.bought)
			}
		})
	}
	var daemonProc, stockProc *testenv.Program
	for range 5 {
		daemonProc = startProcess(t, nil, "run", "-c", daemonFile)
		stockProc = startProcess(t, nil, "stock", "-c", stockFile)
		from, bought := changes.Load(), s.bought.accepted.Load()
		eventually(t, "traffic between kills", time.Minute, func() (bool, string) {
			c, b := changes.Load()-from, s.bought.accepted.Load()-bought
			return c >= 300 && b >= 50, fmt.Sprint(c, " changes, ", b, " holds; ", stockProc.Log, daemonProc.Log)
		})
		daemonProc.Kill()
		stockProc.Kill()
	}
	cancel()
	wg.Wait()
	daemonProc = startProcess(t, nil, "run", "-c", daemonFile)
	stockProc = startProcess(t, nil, "stock", "-c", stockFile)
	t.Logf("%d changes, %d holds, %d requests failed while the API was down", changes.Load(), s.bought.accepted.Load(), s.bought.failed.Load())

	v := &verdict{}
	s.judgeShopStock(t.Context(), t, v)
	res := rowtideCommand(t, nil, "verify", "-c", daemonFile)
	if res.code != exitClean || !strings.Contains(res.stdout, "\n0 differences") {
		t.Errorf("verify exits %d:\n%s%s\ndaemon: %s", res.code, res.stdout, res.stderr, daemonProc.Log)
	}
	if code := daemonProc.Terminate(t); code != exitClean {
		t.Errorf("daemon exits %d after SIGTERM:\n%s", code, daemonProc.Log)
	}
	if code := stockProc.Terminate(t); code != exitClean {
		t.Errorf("stock API exits %d after SIGTERM:\n%s", code, stockProc.Log)
	}
}

// judgeShopStock checks the stock and that the ledger's last word reached the
// display entries: Redis -> Kafka -> MySQL -> binlog -> Redis.
func (s *shop) judgeShopStock(ctx context.Context, t *testing.T, v *verdict) {
	t.Helper()
	s.judgeStock(ctx, v)
	for _, l := range v.lines {
		if l.claim == "buyers were answered" {
			continue // the API was down five times; what counts is below
		}
		if !l.holds {
			t.Errorf("%s: NO: %s", l.claim, l.detail)
		}
	}
	m := s.daemon.modules[len(s.daemon.modules)-1]
	if m.Config().Name != "stock_view" {
		t.Fatalf("last module is %s", m.Config().Name)
	}
	ver, err := s.daemon.verifier()
	if err != nil {
		t.Fatal(err)
	}
	r, err := ver.module(ctx, m)
	if err != nil || r.Keys != len(saleSKUs) || r.total() > 0 {
		t.Errorf("stock_view: %+v, error %v", r, err)
	}
}

// A purchase through the HTTP API comes round to the web nodes' local caches.
func TestShop_PurchaseLoopsBackToTheNodes(t *testing.T) {
	s := privateShop(t, testenv.StartMariaDB)
	runParts(t, s)
	if err := s.caughtUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.openNodes(t.Context()); err != nil {
		t.Fatal(err)
	}
	hot := saleEvent + ":" + hotSKU
	before, err := s.stock.svc.SKU(t.Context(), saleEvent, hotSKU)
	if err != nil {
		t.Fatal(err)
	}
	svc := s.stock.svc
	h, err := svc.Hold(t.Context(), stockapi.HoldRequest{Event: saleEvent, User: "ada", Key: "k1", Items: []stockapi.Item{{SKU: hotSKU, Qty: 2}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := svc.Confirm(t.Context(), h.ID, "pay-1"); err != nil {
		t.Fatal(err)
	}
	for i, n := range s.nodes {
		eventually(t, fmt.Sprintf("node %d shows the sale", i+1), 20*time.Second, func() (bool, string) {
			got, err := n.stock.Get(t.Context(), hot)
			return err == nil && got.Sold == 2 && got.Held == 0, fmt.Sprintf("%+v, %v, was %+v", got, err, before)
		})
	}
}
