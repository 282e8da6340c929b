package rowtide_test

import (
	"strings"
	"testing"

	"github.com/rowtide/rowtide"
)

func TestParsePosition(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want rowtide.Position
		err  string
	}{
		{"binlog.000004:157", rowtide.Position{File: "binlog.000004", Pos: 157}, ""},
		{"binlog.000004:18446744073709551615", rowtide.Position{File: "binlog.000004", Pos: 1<<64 - 1}, ""},
		{"", rowtide.Position{}, "want FILE:POS"},
		{"binlog.000004", rowtide.Position{}, "want FILE:POS"},
		{":157", rowtide.Position{}, "want FILE:POS"},
		{"binlog.000004:", rowtide.Position{}, "invalid syntax"},
		{"binlog.000004:-1", rowtide.Position{}, "invalid syntax"},
		{"binlog.000004:+1", rowtide.Position{}, "invalid syntax"},
		{"binlog.000004:1:2", rowtide.Position{}, "invalid syntax"},
		{"binlog.000004:18446744073709551616", rowtide.Position{}, "value out of range"},
	} {
		t.Run(tt.in, func(t *testing.T) {
			got, err := rowtide.ParsePosition(tt.in)
			if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%+v, %v; want %+v, %q", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestPosition_String(t *testing.T) {
	p := rowtide.Position{File: "binlog.000004", Pos: 157}
	if got, want := p.String(), "binlog.000004:157"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	p.GTID = "0-1-7"
	if got, want := p.String(), "binlog.000004:157 (0-1-7)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestFileNumber(t *testing.T) {
	for name, want := range map[string]uint32{
		"binlog.000004": 4, "mysql-bin.999999": 999999, "binlog.1000000": 1000000, "a.b.000012": 12, ".000001": 1, "x.4294967295": 1<<32 - 1,
	} {
		if got, err := rowtide.FileNumber(name); err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", name, got, err, want)
		}
	}
	for _, name := range []string{"", "binlog", "7", "binlog.", "binlog.index", "binlog.-1", "binlog.0x1", "x.4294967296"} {
		if got, err := rowtide.FileNumber(name); err == nil || !strings.Contains(err.Error(), "has no number") {
			t.Errorf("%q: %d, %v; want an error", name, got, err)
		}
	}
}

func FuzzParsePosition(f *testing.F) {
	for _, s := range []string{"binlog.000004:157", "a:b", ":", "x:1:2", "\x00:0", "f:18446744073709551616"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := rowtide.ParsePosition(s)
		if err != nil {
			if p != (rowtide.Position{}) {
				t.Errorf("%+v beside error %v", p, err)
			}
			return
		}
		if again, err := rowtide.ParsePosition(p.String()); err != nil || again != p {
			t.Errorf("%q: %+v, %v; want %+v", p.String(), again, err, p)
		}
	})
}
