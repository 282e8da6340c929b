package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/rowtide/rowtide/binlog"
)

func TestKeysCondition_TakesKeysApartByTheTemplate(t *testing.T) {
	for _, tt := range []struct{ template, key, want string }{
		{"{id}", "7", "(`id` = '7')"},
		{"e-{id}", "e-7", "(`id` = '7')"},
		{"{a}:{b}", "1:2", "(`a` = '1' AND `b` = '2')"},
		{"{a}:{b}", "x:y:z", "(`a` = 'x' AND `b` = 'y:z') OR (`a` = 'x:y' AND `b` = 'z')"},
		{"{a}{b}", "xy", "(`a` = '' AND `b` = 'xy') OR (`a` = 'x' AND `b` = 'y') OR (`a` = 'xy' AND `b` = '')"},
		{"{id}", `o'\`, `(` + "`id`" + ` = 'o''\\')`},
		{"e-{id}", "7", ""},
		{"{a}:{b}", "12", ""},
		{"{a}.x", "12", ""},
	} {
		got, err := keysCondition(tt.template, []string{tt.key})
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("keysCondition(%q, %q) = %s, %v; want %s", tt.template, tt.key, got, err, tt.want)
		}
	}
	if got, _ := keysCondition("{id}", []string{"1", "2"}); got != "(`id` = '1') OR (`id` = '2')" {
		t.Errorf("two keys: %s", got)
	}
}

func TestFillTeller_TellsLinesAndABar(t *testing.T) {
	for _, bar := range []bool{false, true} {
		var out bytes.Buffer
		tell := newFillTeller(&out)
		now := time.Unix(0, 0)
		tell.bar, tell.every, tell.now = bar, time.Second, func() time.Time { return now }
		f := binlog.Backfill{ID: 3, BackfillRequest: binlog.BackfillRequest{Table: "s.t"}, Status: binlog.BackfillQueued, Estimated: 1000}
		step := func(s binlog.BackfillStatus, rows int64, after time.Duration) error {
			now = now.Add(after)
			f.Status, f.Rows = s, rows
			return tell.tell([]binlog.Backfill{f})
		}
		_ = step(binlog.BackfillQueued, 0, time.Second)
		if !tell.idle() || tell.over() {
			t.Error("a queued request is not idle, or is over")
		}
		_ = step(binlog.BackfillRunning, 100, time.Second)
		_ = step(binlog.BackfillRunning, 150, time.Second/2) // too soon for a line
		_ = step(binlog.BackfillRunning, 400, time.Second/2)
		_ = step(binlog.BackfillPaused, 400, time.Second)
		_ = step(binlog.BackfillRunning, 400, time.Second)
		f.Err = "no key"
		err := step(binlog.BackfillFailed, 900, time.Second)
		if err == nil || err.Error() != "backfill of s.t failed: no key" || !tell.over() {
			t.Errorf("err=%v", err)
		}
		want := []string{"10%  100 of about 1000 rows, 0/s, ? left", "40%  400 of about 1000 rows, 300/s, 2s left", "s.t is paused", "s.t: failed, 900 rows in 4s"}
		if bar {
			want = append(want, "\r\x1b[Ks.t [============                  ]  40%")
		}
		at := 0
		for _, w := range want[:4] {
			i := strings.Index(out.String()[at:], w)
			if i < 0 {
				t.Fatalf("bar=%v: %q lacks %q", bar, out.String()[at:], w)
			}
			at += i
		}
		if bar && !strings.Contains(out.String(), want[4]) {
			t.Errorf("%q lacks %q", out.String(), want[4])
		}
		if !bar && strings.Contains(out.String(), "150") {
			t.Errorf("told too often: %q", out.String())
		}
	}
}
