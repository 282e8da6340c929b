package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/go-sql-driver/mysql"
	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/aggregator"
	"github.com/rowtide/rowtide/internal/overwrite"
)

func testCheck(t *testing.T, codec, layout string) (*check, *redis.Client) {
	t.Helper()
	mods, err := aggregator.Compile([]aggregator.ModuleConfig{{
		Name: "m", Key: "{id}", Codec: codec, Layout: layout, From: &aggregator.FromConfig{Table: "s.t", Columns: []string{"name"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()})
	t.Cleanup(func() { rdb.Close() })
	return &check{verifier: &verifier{rdb: rdb, prefix: "p"}, m: mods[0], r: &moduleReport{Module: "m"}}, rdb
}

func TestVerifyDiffer_KindsByLayout(t *testing.T) {
	good := rowtide.Entry{Key: rowtide.Key{Module: "m", Version: 1, ID: "1"}, Version: 5, Payload: []byte(`{"a":1,"b":[2]}`)}
	envelope := func(change func(*rowtide.Entry)) map[string]string {
		e := good
		change(&e)
		return map[string]string{"p:m:1:1": string(e.AppendEnvelope(nil))}
	}
	plain := func(value, version string) map[string]string {
		return map[string]string{"p:m:1:1": value, "{p:m:1:1}:v": version}
	}
	const there, absent = `{"b":[2],"a":1}`, ""
	for _, tt := range []struct {
		name, layout string
		redis        map[string]string
		want         string // the database's value
		kind         string
	}{
		{"agrees in another order", aggregator.LayoutEnvelope, envelope(func(*rowtide.Entry) {}), there, ""},
		{"fill agrees", aggregator.LayoutEnvelope, envelope(func(e *rowtide.Entry) { e.Flags = rowtide.FlagFill }), there, ""},
		{"both have none", aggregator.LayoutEnvelope, nil, absent, ""},
		{"EMPTY and no row", aggregator.LayoutEnvelope, envelope(func(e *rowtide.Entry) { e.Flags = rowtide.FlagEmpty; e.Payload = nil }), absent, ""},
		{"nothing", aggregator.LayoutEnvelope, nil, there, diffMissing},
		{"another value", aggregator.LayoutEnvelope, envelope(func(e *rowtide.Entry) { e.Payload = []byte(`{"a":2}`) }), there, diffStale},
		{"trailing bytes", aggregator.LayoutEnvelope, envelope(func(e *rowtide.Entry) { e.Payload = []byte(there + "{}") }), there, diffStale},
		{"EMPTY", aggregator.LayoutEnvelope, envelope(func(e *rowtide.Entry) { e.Flags = rowtide.FlagEmpty; e.Payload = nil }), there, diffStale},
		{"no row", aggregator.LayoutEnvelope, envelope(func(*rowtide.Entry) {}), absent, diffExtra},
		{"foreign bytes", aggregator.LayoutEnvelope, map[string]string{"p:m:1:1": "x"}, there, diffWrong},
		{"foreign bytes and no row", aggregator.LayoutEnvelope, map[string]string{"p:m:1:1": "x"}, absent, diffWrong},
		{"envelope of another key", aggregator.LayoutEnvelope, envelope(func(e *rowtide.Entry) { e.Key.ID = "2" }), there, diffWrong},
		{"envelope of another module version", aggregator.LayoutEnvelope, envelope(func(e *rowtide.Entry) { e.Key.Version = 2 }), there, diffWrong},
		{"plain agrees", aggregator.LayoutPlain, plain(there, overwrite.PlainVersion(5, 0)), there, ""},
		{"plain agrees, its version was evicted", aggregator.LayoutPlain, map[string]string{"p:m:1:1": there}, there, ""},
		{"plain EMPTY and no row", aggregator.LayoutPlain, plain("", overwrite.PlainVersion(5, rowtide.FlagEmpty)), absent, ""},
		{"plain, only a version", aggregator.LayoutPlain, map[string]string{"{p:m:1:1}:v": overwrite.PlainVersion(5, 0)}, there, diffMissing},
		{"plain, an empty value is one", aggregator.LayoutPlain, plain("", overwrite.PlainVersion(5, 0)), absent, diffExtra},
		{"plain, another value", aggregator.LayoutPlain, plain("{}", overwrite.PlainVersion(5, 0)), there, diffStale},
		{"plain EMPTY with a value", aggregator.LayoutPlain, plain("{}", overwrite.PlainVersion(5, rowtide.FlagEmpty)), there, diffWrong},
		{"plain, a version that is none", aggregator.LayoutPlain, plain(there, "5"), there, diffWrong},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, rdb := testCheck(t, aggregator.CodecJSON, tt.layout)
			for k, v := range tt.redis {
				rdb.Set(t.Context(), k, v, 0)
			}
			got, err := c.read(t.Context(), []string{"1", "2"})
			if err != nil || got[1].there {
				t.Fatalf("%+v, %v", got, err)
			}
			want := aggregator.Expected{ID: "1"}
			if tt.want != "" {
				want.Payload = []byte(tt.want)
			}
			kind := ""
			if d := c.differ(want, &got[0]); d != nil {
				kind = d.Kind
			}
			if kind != tt.kind {
				t.Errorf("kind %q, want %q", kind, tt.kind)
			}
			held, err := c.holding(t.Context(), []string{"1"})
			if err != nil || (tt.kind == diffExtra) && len(held) != 1 {
				t.Errorf("holding %v, %v", held, err)
			}
			// A row that cannot be a value differs whatever is there.
			if d := c.differ(aggregator.Expected{ID: "1", Err: errors.New("too large")}, &got[0]); d == nil || d.Kind != diffWrong || !strings.Contains(d.Source, "too large") {
				t.Errorf("faulty row: %+v", d)
			}
		})
	}
}

func TestVerifyRead_AnotherTypeIsAFaultOfTheKey(t *testing.T) {
	for _, layout := range []string{aggregator.LayoutEnvelope, aggregator.LayoutPlain} {
		c, rdb := testCheck(t, aggregator.CodecJSON, layout)
		rdb.HSet(t.Context(), "p:m:1:1", "a", "b")
		rdb.HSet(t.Context(), "{p:m:1:2}:v", "a", "b")
		got, err := c.read(t.Context(), []string{"1", "2"})
		if err != nil || !got[0].foreign || got[0].err == nil || got[1].foreign != (layout == aggregator.LayoutPlain) {
			t.Errorf("%s: %+v, %v", layout, got, err)
		}
	}
}

func TestSamePayload_ByCodec(t *testing.T) {
	pack := func(v any) string {
		b, err := msgpack.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, tt := range []struct {
		codec, a, b string
		want        bool
	}{
		{aggregator.CodecJSON, `{"a":1,"b":2}`, `{"b":2, "a":1}`, true},
		{aggregator.CodecJSON, `{"a":9007199254740993}`, `{"a":9007199254740992}`, false},
		{aggregator.CodecRaw, `{"a":1}`, `{"a": 1}`, false},
		{aggregator.CodecRaw, `1`, `1`, true},
		{aggregator.CodecMsgpack, pack(map[string]any{"a": int8(1)}), pack(map[string]any{"a": int64(1)}), true},
		{aggregator.CodecMsgpack, pack(map[string]any{"a": 1}), pack(map[string]any{"a": 2}), false},
		{aggregator.CodecMsgpack, pack(1), pack(1) + pack(1), false},
		{aggregator.CodecMsgpack, "\xc1", pack(1), false},
	} {
		if got := samePayload(tt.codec, []byte(tt.a), []byte(tt.b)); got != tt.want {
			t.Errorf("%s: %q and %q: %t, want %t", tt.codec, tt.a, tt.b, got, tt.want)
		}
	}
	if got := readable(aggregator.CodecMsgpack, []byte(pack(map[string]any{"a": 1}))); got != `{"a":1}` {
		t.Errorf("msgpack is shown as %s", got)
	}
	if got := readable(aggregator.CodecRaw, []byte("\xff")); got != `"\xff"` {
		t.Errorf("bytes are shown as %s", got)
	}
}

func TestVerifyShow_IsBounded(t *testing.T) {
	c, _ := testCheck(t, aggregator.CodecJSON, "")
	c.truncated = 10
	if got := c.show([]byte("12345678é0")); got != "12345678é…" {
		t.Errorf("%q", got)
	}
	if got := c.show([]byte("123456789é0")); got != "123456789…" {
		t.Errorf("cut inside a letter: %q", got)
	}
}

// A key that the server cannot compare is nobody's, and must not hide the rest of
// its batch.
func TestVerifyByKeys_RefusedKeysAreAskedForOneByOne(t *testing.T) {
	c, _ := testCheck(t, aggregator.CodecJSON, "")
	var asked []string
	ask := func(refusal error) func([]string) error {
		return func(ids []string) error {
			asked = append(asked, strings.Join(ids, ","))
			if strings.Contains(asked[len(asked)-1], "bad") {
				return fmt.Errorf("query: %w", refusal)
			}
			return nil
		}
	}
	err := c.byKeys(t.Context(), []string{"1", "bad", "2"}, ask(&mysql.MySQLError{Number: 1525}))
	if got := strings.Join(asked, " "); err != nil || got != "1,bad,2 1 bad 2" {
		t.Errorf("asked %s, %v", got, err)
	}
	denied := &mysql.MySQLError{Number: 1142}
	if err := c.byKeys(t.Context(), []string{"1", "bad"}, ask(denied)); !errors.Is(err, denied) {
		t.Errorf("a refusal of another kind: %v", err)
	}
}

func TestModuleReport_KeepsTheFirstAndCountsAll(t *testing.T) {
	r := &moduleReport{}
	for i := range 10 {
		for _, kind := range []string{diffMissing, diffStale, diffExtra, diffWrong} {
			r.note(difference{ID: kind + fmt.Sprint(i), Kind: kind}, 3)
		}
	}
	r.note(difference{ID: diffMissing + "0", Kind: diffMissing}, 3) // a scan may yield a key twice
	if r.total() != 40 || r.Missing != 10 || r.Wrong != 10 || len(r.Differences) != 3 {
		t.Errorf("%+v", r)
	}
}

func TestVerifyReport_Prints(t *testing.T) {
	rep := verifyReport{Keys: 3, Differences: 2, Modules: []*moduleReport{{
		Module: "m", Keys: 3, Scanned: 4, Stale: 2, Tolerated: 1,
		Differences: []difference{{Module: "m", ID: "1", Kind: diffStale, Version: 1 << 60, Redis: "a", Source: "b", Unrepaired: "because"}},
	}}}
	var out bytes.Buffer
	cmd := &cobra.Command{}
	cmd.SetOut(&out)
	if err := rep.print(cmd, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"m       3     4         0        2", "m stale 1\n  redis:  a\n  source: b\n  not repaired: because\n", "1 keys are missing", "\n2 differences\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("lacks %q:\n%s", want, out.String())
		}
	}
	out.Reset()
	if err := rep.print(cmd, true); err != nil {
		t.Fatal(err)
	}
	var back verifyReport
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back.Modules[0].Differences[0].Version != 1<<60 {
		t.Errorf("%v: %s", err, out.String())
	}
}

func TestVerifyProgress_BarAndLines(t *testing.T) {
	now := time.Unix(0, 0)
	var out bytes.Buffer
	p := newProgress(&out)
	if p.bar || p.every != lineEvery {
		t.Fatalf("a buffer is no terminal: %+v", p)
	}
	p.now = func() time.Time { return now }
	p.module, p.total, p.began, p.told = "event", 2000, now, now
	p.add(500)
	now = now.Add(lineEvery)
	p.add(500)
	if got, want := out.String(), "event  50%, 1000 keys, 100/s, about 10s left\n"; got != want {
		t.Errorf("line %q, want %q", got, want)
	}
	out.Reset()
	p.bar = true
	now = now.Add(lineEvery)
	p.add(500)
	p.end()
	if got := out.String(); !strings.Contains(got, "event [======================        ]  75%  75 keys/s  about 7s left") || !strings.HasSuffix(got, "\r\x1b[K") {
		t.Errorf("bar %q", got)
	}
	out.Reset()
	now = now.Add(lineEvery)
	p.add(5000)
	if got := out.String(); !strings.Contains(got, "event  6500 keys, 217/s") {
		t.Errorf("past the estimate: %q", got)
	}
	var none *progress
	none.add(1)
	none.end()
}

func TestReached_OrdersFilesByNumber(t *testing.T) {
	at := func(file string, pos uint64) rowtide.Position { return rowtide.Position{File: file, Pos: pos} }
	for _, tt := range []struct {
		a, b rowtide.Position
		want bool
	}{
		{at("b.000010", 4), at("b.000009", 99), true},
		{at("b.000009", 99), at("b.000009", 99), true},
		{at("b.000009", 98), at("b.000009", 99), false},
		{at("b.000009", 99), at("b.000010", 4), false},
		{at("", 0), at("b.000001", 4), false},
	} {
		if got := reached(tt.a, tt.b); got != tt.want {
			t.Errorf("%s reached %s: %t", tt.a, tt.b, got)
		}
	}
}

func noHead(context.Context) (rowtide.Position, error) { return rowtide.Position{}, nil }

func TestPursuitCovered_RefusesWhatIsNotKnownToBeSafe(t *testing.T) {
	p := &pursuit{source: "s", head: noHead}
	at := place{head: rowtide.Position{File: "b.000003", Pos: 7}, reached: true, source: "s", epoch: 2}
	if v, err := p.covered(at); err != nil || v.String() != "2/3/7" {
		t.Errorf("%s, %v", v, err)
	}
	behind, other := at, at
	behind.reached, other.source = false, "t"
	for _, bad := range []place{behind, other} {
		if _, err := p.covered(bad); err == nil {
			t.Errorf("%+v is taken for covered", bad)
		}
	}
	if _, err := (&pursuit{}).covered(at); err == nil {
		t.Error("a feed's positions are taken for the database's")
	}
}

func TestVerifyAndGet_RefuseWrongWords(t *testing.T) {
	for _, args := range [][]string{{"verify", "x"}, {"verify", "--rate", "-1"}, {"verify", "--max-diffs", "-1"}, {"get"}, {"get", "m"}, {"get", "m", "1", "2"}} {
		root := newRoot()
		root.SetArgs(args)
		root.SetOut(&bytes.Buffer{})
		if code := exitCode(root.ExecuteContext(t.Context())); code != exitConfig {
			t.Errorf("%v exits %d, want %d", args, code, exitConfig)
		}
	}
}

func TestGlobEscape(t *testing.T) {
	if got := globEscape(`a*b?c[d\e`); got != `a\*b\?c\[d\\e` {
		t.Error(got)
	}
}
