package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/rowtide/rowtide"
)

// How often progress is told.
const (
	barEvery  = 200 * time.Millisecond
	lineEvery = 10 * time.Second
)

// progress tells how far verify is: a bar on a terminal, a line now and then
// elsewhere. A nil progress tells nothing.
type progress struct {
	out   io.Writer
	bar   bool
	now   func() time.Time
	every time.Duration

	module string
	total  int64 // keys to come, both ways; an estimate
	done   int64
	began  time.Time
	told   time.Time
}

func newProgress(out io.Writer) *progress {
	p := &progress{out: out, now: time.Now, every: lineEvery}
	if f, ok := out.(*os.File); ok && terminal(f) {
		p.bar, p.every = true, barEvery
	}
	return p
}

// terminal reports whether somebody may be watching. The null device is a
// character device too.
func terminal(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// begin turns to a module, whose size the server estimates.
func (p *progress) begin(ctx context.Context, c *check) error {
	if p == nil {
		return nil
	}
	p.end()
	var rows int64
	schema, table, _ := strings.Cut(c.m.Table(), ".")
	err := c.db.Each(ctx, "SELECT CAST(TABLE_ROWS AS SIGNED) FROM information_schema.TABLES WHERE TABLE_SCHEMA=? AND TABLE_NAME=?",
		[]any{schema, table}, func(_ []string, row []rowtide.Value) error {
			rows, _ = row[0].(int64) // NULL of a view
			return nil
		})
	p.module, p.total, p.done = c.r.Module, 2*rows, 0
	p.began = p.now()
	p.told = p.began
	return err
}

// add counts keys.
func (p *progress) add(keys int) {
	if p == nil {
		return
	}
	p.done += int64(keys)
	now := p.now()
	if now.Sub(p.told) < p.every {
		return
	}
	p.told = now
	if p.bar {
		fmt.Fprintf(p.out, "\r\x1b[K%s", p.line(now))
	} else {
		fmt.Fprintln(p.out, p.line(now))
	}
}

// end leaves the line of a bar free for others.
func (p *progress) end() {
	if p != nil && p.bar {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

const barWidth = 30

func (p *progress) line(now time.Time) string {
	took := now.Sub(p.began)
	perSecond := float64(p.done) / max(took.Seconds(), 1e-3)
	if p.total < p.done { // the estimate was too low, or there is none
		return fmt.Sprintf("%s  %d keys, %.0f/s", p.module, p.done, perSecond)
	}
	share := float64(p.done) / float64(max(p.total, 1))
	eta := time.Duration(float64(p.total-p.done) / max(perSecond, 1e-3) * float64(time.Second)).Round(time.Second)
	if !p.bar {
		return fmt.Sprintf("%s  %.0f%%, %d keys, %.0f/s, about %s left", p.module, 100*share, p.done, perSecond, eta)
	}
	full := int(share * barWidth)
	return fmt.Sprintf("%s [%s%s] %3.0f%%  %.0f keys/s  about %s left", p.module,
		strings.Repeat("=", full), strings.Repeat(" ", barWidth-full), 100*share, perSecond, eta)
}
