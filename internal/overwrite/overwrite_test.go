package overwrite_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/overwrite"
)

var scriptKey = rowtide.Key{Module: "event", Version: 1, ID: "42"}

func envelope(v rowtide.Version, payload string) []byte {
	e := rowtide.Entry{Key: scriptKey, Version: v, BuiltAt: time.UnixMilli(1), TTL: time.Minute, Payload: []byte(payload)}
	return e.AppendEnvelope(nil)
}

func run(t *testing.T, rdb *redis.Client, mode overwrite.Mode, args []any, keys ...string) []overwrite.Result {
	t.Helper()
	codes, err := rdb.Eval(t.Context(), overwrite.Script, keys, append([]any{string(mode)}, args...)...).Int64Slice()
	if err != nil {
		t.Fatal(err)
	}
	var out []overwrite.Result
	for _, c := range codes {
		out = append(out, overwrite.Result(c))
	}
	return out
}

func onMiniredis(t *testing.T) (*redis.Client, string) {
	t.Helper()
	rdb := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()})
	t.Cleanup(func() { rdb.Close() })
	return rdb, "p"
}

func TestScript_Miniredis(t *testing.T) { checkScript(t, onMiniredis) }

// versions are pairs of an older and a newer one; the later pairs differ only
// where a double has no digits left.
var versions = [][2]rowtide.Version{
	{1, 2},
	{1, 1 << 52},
	{1<<32 - 1, 1 << 32},
	{1<<53 - 1, 1 << 53},
	{1 << 53, 1<<53 + 1},
	{1 << 60, 1<<60 + 1},
	{1<<63 - 1, 1 << 63},
	{1<<64 - 2, 1<<64 - 1},
	{0x00ffffff_00000000, 0x01000000_00000000},
	{0x7f000000_ffffffff, 0x80000000_00000000},
}

func checkScript(t *testing.T, open func(*testing.T) (*redis.Client, string)) {
	t.Helper()
	rdb, prefix := open(t)
	n := 0
	// state puts something under a key; want is the result by mode.
	type state struct {
		name string
		make func(key string, older, newer rowtide.Version)
		want map[overwrite.Mode]overwrite.Result
	}
	all := func(r overwrite.Result) map[overwrite.Mode]overwrite.Result {
		return map[overwrite.Mode]overwrite.Result{overwrite.CDC: r, overwrite.Replay: r, overwrite.Fill: r}
	}
	set := func(key string, v any) {
		t.Helper()
		if err := rdb.Set(t.Context(), key, v, time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []state{
		{"missing", func(string, rowtide.Version, rowtide.Version) {}, map[overwrite.Mode]overwrite.Result{overwrite.CDC: overwrite.Written, overwrite.Replay: overwrite.Missing, overwrite.Fill: overwrite.Written}},
		{"older there", func(k string, older, _ rowtide.Version) { set(k, envelope(older, "there")) }, all(overwrite.Written)},
		{"equal there", func(k string, _, newer rowtide.Version) { set(k, envelope(newer, "there")) }, map[overwrite.Mode]overwrite.Result{overwrite.CDC: overwrite.Written, overwrite.Replay: overwrite.Written, overwrite.Fill: overwrite.Tie}},
		{"foreign bytes", func(k string, _, _ rowtide.Version) { set(k, `{"some":"body else's JSON"}`) }, all(overwrite.Written)},
		{"short foreign bytes", func(k string, _, _ rowtide.Version) { set(k, "\xa7short") }, all(overwrite.Written)},
		{"hash", func(k string, _, _ rowtide.Version) { rdb.HSet(t.Context(), k, "f", "v") }, all(overwrite.WrongType)},
		{"list", func(k string, _, _ rowtide.Version) { rdb.RPush(t.Context(), k, "v") }, all(overwrite.WrongType)},
	} {
		for mode, want := range s.want {
			for _, v := range versions {
				n++
				key := fmt.Sprintf("%s:%d", prefix, n)
				s.make(key, v[0], v[1])
				env := envelope(v[1], "ours")
				before, _ := rdb.Get(t.Context(), key).Bytes()
				if got := run(t, rdb, mode, []any{env, 5000}, key); !slices.Equal(got, []overwrite.Result{want}) {
					t.Errorf("%s, %s, %d over %d: %v, want %v", s.name, mode, v[1], v[0], got, want)
				}
				after, _ := rdb.Get(t.Context(), key).Bytes()
				if want == overwrite.Written {
					if !slices.Equal(after, env) {
						t.Errorf("%s, %s: holds %q, want ours", s.name, mode, after)
					}
					if ttl := rdb.PTTL(t.Context(), key).Val(); ttl <= 0 || ttl > 5*time.Second {
						t.Errorf("%s, %s: ttl %s, want ours of 5s", s.name, mode, ttl)
					}
				} else if !slices.Equal(after, before) {
					t.Errorf("%s, %s: holds %q, want it untouched: %q", s.name, mode, after, before)
				}
			}
		}
	}
	t.Run("newer there", func(t *testing.T) {
		for _, mode := range []overwrite.Mode{overwrite.CDC, overwrite.Replay, overwrite.Fill} {
			for _, v := range versions {
				n++
				key := fmt.Sprintf("%s:%d", prefix, n)
				set(key, envelope(v[1], "newer"))
				if got := run(t, rdb, mode, []any{envelope(v[0], "ours"), 5000}, key); got[0] != overwrite.Stale {
					t.Errorf("%s: %d over %d: %v, want stale", mode, v[0], v[1], got)
				}
			}
		}
	})
	t.Run("no ttl", func(t *testing.T) {
		key := prefix + ":forever"
		set(key, envelope(1, "with an hour to live"))
		run(t, rdb, overwrite.CDC, []any{envelope(2, "ours"), 0}, key)
		if ttl := rdb.PTTL(t.Context(), key).Val(); ttl != -1 {
			t.Errorf("ttl %s, want none", ttl)
		}
	})
	t.Run("many keys", func(t *testing.T) {
		var keys []string
		var args []any
		var want []overwrite.Result
		for i := range 100 {
			key := fmt.Sprintf("%s:many:%d", prefix, i)
			keys, args = append(keys, key), append(args, envelope(50, fmt.Sprint(i)), 1000+i)
			switch i % 4 {
			case 0:
				want = append(want, overwrite.Written)
			case 1:
				set(key, envelope(51, "newer"))
				want = append(want, overwrite.Stale)
			case 2:
				rdb.HSet(t.Context(), key, "f", "v")
				want = append(want, overwrite.WrongType)
			case 3:
				set(key, envelope(49, "older"))
				want = append(want, overwrite.Written)
			}
		}
		if got := run(t, rdb, overwrite.CDC, args, keys...); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		if got := rdb.Get(t.Context(), keys[99]).Val(); !strings.HasSuffix(got, "99") {
			t.Errorf("the last key holds %q, want its own payload", got)
		}
	})
}

func TestResult_LabelsAndCodes(t *testing.T) {
	for r, want := range map[overwrite.Result]string{0: "stale", 1: "written", 2: "tie", 3: "missing", 4: "wrong_type", 5: "fenced", 6: "unknown", -1: "unknown"} {
		if got := r.String(); got != want {
			t.Errorf("%d: %q, want %q", int64(r), got, want)
		}
	}
}
