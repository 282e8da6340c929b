package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/aggregator"
	"github.com/rowtide/rowtide/stockapi"
)

// verdict is the demo's closing table.
type verdict struct {
	lines []verdictLine
}

type verdictLine struct {
	claim  string
	holds  bool
	detail string
}

func (v *verdict) add(claim string, holds bool, format string, args ...any) {
	v.lines = append(v.lines, verdictLine{claim, holds, fmt.Sprintf(format, args...)})
}

func (v *verdict) print(out io.Writer) error {
	fmt.Fprintln(out)
	t := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	yes := true
	for _, l := range v.lines {
		word := "yes"
		if !l.holds {
			word, yes = "NO", false
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", word, l.claim, l.detail)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if !yes {
		return errVerdict
	}
	return nil
}

// judge waits for the system to settle, as long as s.patience for each part, and
// compares everything with the database.
func (s *shop) judge(ctx context.Context) *verdict {
	v := &verdict{}
	fmt.Fprintln(s.out, "\nload has ended; waiting for open holds to expire and for the pipeline to empty")
	s.judgeStock(ctx, v)
	s.judgeRedis(ctx, v)
	s.judgeNodes(ctx, v)
	p50, p99, n, missing := s.meter.total()
	v.add("every commit reached every node", n > 0 && missing == 0, "p50 %s ms, p99 %s ms over %d arrivals, %d missing", ms(p50), ms(p99), n, missing)
	var gaps uint64
	for _, node := range s.nodes {
		gaps += node.cache.Stats().Bus.Gaps
	}
	v.add("no node missed a record", gaps == 0, "%d gaps", gaps)
	return v
}

// settled polls until ok or until patience ends; what is not settled by then
// shows in the verdict. A poll is cheap beside what it waits for.
func (s *shop) settled(ctx context.Context, ok func() (bool, error)) error {
	for deadline := time.Now().Add(s.patience); ; pause(ctx, 100*time.Millisecond) {
		done, err := ok()
		if err != nil || done || time.Now().After(deadline) {
			return err
		}
	}
}

func (s *shop) judgeStock(ctx context.Context, v *verdict) {
	const claim = "nothing is in flight"
	checker, err := stockapi.NewChecker(s.stock.svc, s.stock.db)
	if err != nil {
		v.add(claim, false, "%v", err)
		return
	}
	var drain stockapi.Drain
	var rep stockapi.Report
	err = s.settled(ctx, func() (bool, error) {
		// Holds first: once none is open, no event can follow that a look at the
		// ledger would have missed.
		if rep, err = checker.Check(ctx); err != nil || live(rep) > 0 {
			return false, err
		}
		drain, err = checker.Drained(ctx)
		return drain.OK(), err
	})
	if err == nil {
		rep, err = checker.Check(ctx) // as it stands in the end
	}
	if err != nil {
		v.add(claim, false, "%v", err)
		return
	}
	v.add(claim, drain.OK() && live(rep) == 0, "outbox and ledger: %s; open holds: %d", orDone(drain.Behind), live(rep))
	v.add("stock invariants hold", rep.OK(), "%s", orDone(violationTexts(rep)))
	s.judgeUnits(v, rep)
	s.judgeHolds(ctx, v)
}

func live(r stockapi.Report) (n int64) {
	for _, c := range r.Cells {
		n += c.Live
	}
	return n
}

func violationTexts(r stockapi.Report) (out []string) {
	for _, x := range r.Violations {
		out = append(out, x.String())
	}
	return out
}

func orDone(problems []string) string {
	if len(problems) == 0 {
		return "none open"
	}
	return strings.Join(problems[:min(len(problems), 3)], "; ")
}

// judgeUnits counts every unit: on sale = left + held + sold, and as many sold as
// buyers were told.
func (s *shop) judgeUnits(v *verdict, rep stockapi.Report) {
	var total, left, held, sold int64
	for _, k := range saleSKUs {
		total += s.stockUnits * k.share / 100
	}
	for _, c := range rep.Cells {
		for _, n := range c.DB {
			left, held, sold = left+n.Avail, held+n.Held, sold+n.Sold
		}
	}
	p := s.bought
	var told, unsure int64
	p.mu.Lock()
	for _, h := range p.holds {
		switch h.want {
		case "confirmed":
			told += h.qty
		case "":
			unsure += h.qty
		}
	}
	p.mu.Unlock()
	v.add("no unit oversold or lost", left+held+sold == total && left >= 0 && sold >= told && sold <= told+unsure,
		"left %d + held %d + sold %d = %d of %d on sale; buyers were told %d", left, held, sold, left+held+sold, total, told)
	v.add("buyers were answered", p.failed.Load() == 0, "%d holds, %d refused as sold out or over the limit, %d failed",
		p.accepted.Load(), p.soldOut.Load(), p.failed.Load())
}

// judgeHolds looks every accepted hold up in the ledger.
func (s *shop) judgeHolds(ctx context.Context, v *verdict) {
	const claim = "every accepted hold is in the ledger"
	rows, err := s.db.QueryContext(ctx, "SELECT hold, state FROM shop.stock_detail")
	if err != nil {
		v.add(claim, false, "%v", err)
		return
	}
	defer rows.Close()
	states := map[string]string{}
	for rows.Next() {
		var id, state string
		if err := rows.Scan(&id, &state); err != nil {
			v.add(claim, false, "%v", err)
			return
		}
		states[id] = state
	}
	p := s.bought
	p.mu.Lock()
	defer p.mu.Unlock()
	var missing, other int
	example := ""
	for id, h := range p.holds {
		hold, err := stockapi.ParseHoldID(id)
		if err != nil {
			missing++
			continue
		}
		got, ok := states[hold.Hash]
		switch {
		case !ok:
			missing++
		case h.want != "" && got != h.want:
			other++
			example = fmt.Sprintf(" (%s is %s, the buyer was told %s)", id, got, h.want)
		}
	}
	v.add(claim, rows.Err() == nil && missing == 0 && other == 0, "%d holds, %d missing, %d in another state%s", len(p.holds), missing, other, example)
}

func (s *shop) judgeRedis(ctx context.Context, v *verdict) {
	const claim = "every Redis entry equals MySQL"
	ver, err := s.daemon.verifier()
	if err != nil {
		v.add(claim, false, "%v", err)
		return
	}
	keys, total, found := 0, 0, ""
	for _, m := range s.daemon.modules {
		r, err := ver.module(ctx, m)
		if err != nil {
			v.add(claim, false, "%v", err)
			return
		}
		keys, total = keys+r.Keys, total+r.total()
		if len(r.Differences) > 0 && found == "" {
			d := r.Differences[0]
			found = fmt.Sprintf(", such as %s %s %s: redis %.80s, mysql %.80s", d.Module, d.ID, d.Kind, d.Redis, d.Source)
		}
	}
	v.add(claim, total == 0, "%d keys in %d modules, %d differences%s", keys, len(s.daemon.modules), total, found)
}

// judgeNodes compares every entry that a node would serve without asking anybody.
// Redis has been proven equal by now, so what is still on its way is waited for.
func (s *shop) judgeNodes(ctx context.Context, v *verdict) {
	const claim = "every node's local entry equals MySQL"
	var wrong int
	var resident [demoNodes]int
	example := ""
	ver, err := s.daemon.verifier()
	if err != nil {
		v.add(claim, false, "%v", err)
		return
	}
	err = s.settled(ctx, func() (bool, error) {
		resident, wrong, example = [demoNodes]int{}, 0, ""
		for _, m := range s.daemon.modules {
			c, err := ver.check(ctx, m)
			if err != nil {
				return false, err
			}
			err = c.expected(ctx, func(batch []aggregator.Expected) error {
				for _, want := range batch {
					k := rowtide.Key{Module: m.Config().Name, Version: m.Config().Version, ID: want.ID}
					for i, n := range s.nodes {
						e, ok := n.cache.Peek(k)
						if !ok {
							continue
						}
						resident[i]++
						if e.Empty() != (want.Payload == nil) || !sameDocument(e.Payload, want.Payload) {
							wrong++
							example = fmt.Sprintf(", such as %s on node %d: %.80s, mysql %.80s", k, i+1, e.Payload, want.Payload)
						}
					}
				}
				return nil
			})
			if err != nil {
				return false, err
			}
		}
		return wrong == 0, nil
	})
	if err != nil {
		v.add(claim, false, "%v", err)
		return
	}
	v.add(claim, wrong == 0 && slices.Min(resident[:]) > 0, "%v local entries on the nodes, %d differences%s", resident, wrong, example)
}
