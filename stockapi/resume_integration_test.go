//go:build integration

package stockapi_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/stockapi"
)

// TestLedger_ResumesAtTheNextRecord stops a ledger after its first transaction,
// with many records still to read.
func TestLedger_ResumesAtTheNextRecord(t *testing.T) {
	db := newDB(t, testenv.MariaDB(t))
	cfg := pipeConfig(t, testenv.Kafka(t))
	cfg.RelayBatch, cfg.LedgerBatch = 4, 4
	s := newShop(t, cfg)
	s.load(t, "E", map[string]int64{"A": 100})
	for i := range 31 {
		s.mustHold(t, want(fmt.Sprint("u", i), "k", item("A", 1)))
	}
	obs := newSignals()
	start(t, newRelay(t, s, obs).Run)
	first := newLedger(t, s.cfg, db, obs)
	var commits atomic.Int64
	first.SetBeforeCommit(func() error {
		if commits.Add(1) > 1 {
			return errors.New("crash")
		}
		return nil
	})
	stop := start(t, first.Run)
	obs.until(t, "the second transaction", func() (bool, string) { return commits.Load() > 1, "" })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	start(t, newLedger(t, s.cfg, db, obs).Run)
	rep := obs.drained(t, newChecker(t, s, db))
	if got, want := rep.Cells[0].DB["A"], (stockapi.Counters{Avail: 69, Held: 31, Loaded: 100}); got != want {
		t.Fatalf("stock row %+v, want %+v", got, want)
	}
}
