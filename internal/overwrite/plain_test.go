package overwrite_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/overwrite"
)

func TestPlainScript_Miniredis(t *testing.T) { checkPlainScript(t, onMiniredis) }

func runPlain(t *testing.T, rdb *redis.Client, mode overwrite.Mode, key, value string, v rowtide.Version, ttl int) overwrite.Result {
	t.Helper()
	codes, err := rdb.Eval(t.Context(), overwrite.PlainScript, []string{key, overwrite.VersionKey(key)},
		string(mode), value, overwrite.PlainVersion(v, 0), ttl).Int64Slice()
	if err != nil || len(codes) != 1 {
		t.Fatalf("codes %v, %v", codes, err)
	}
	return overwrite.Result(codes[0])
}

// The table is checkScript's, and what two keys can come to besides: each of
// them gone alone.
func checkPlainScript(t *testing.T, open func(*testing.T) (*redis.Client, string)) {
	t.Helper()
	rdb, prefix := open(t)
	n := 0
	set := func(key string, v any) {
		t.Helper()
		if err := rdb.Set(t.Context(), key, v, time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
	}
	const written, stale, tie, missing, wrong = overwrite.Written, overwrite.Stale, overwrite.Tie, overwrite.Missing, overwrite.WrongType
	for _, s := range []struct {
		name              string
		make              func(key string, older, newer rowtide.Version)
		cdc, replay, fill overwrite.Result
	}{
		{"missing", func(string, rowtide.Version, rowtide.Version) {}, written, missing, written},
		{"older there", func(k string, older, _ rowtide.Version) {
			set(k, "there")
			set(overwrite.VersionKey(k), overwrite.PlainVersion(older, 0))
		}, written, written, written},
		{"older empty value there", func(k string, older, _ rowtide.Version) {
			set(k, "")
			set(overwrite.VersionKey(k), overwrite.PlainVersion(older, rowtide.FlagEmpty))
		}, written, written, written},
		{"equal there", func(k string, _, newer rowtide.Version) {
			set(k, "there")
			set(overwrite.VersionKey(k), overwrite.PlainVersion(newer, 0))
		}, written, written, tie},
		{"value without a version", func(k string, _, _ rowtide.Version) { set(k, "somebody else's") }, written, written, written},
		{"strange version", func(k string, _, _ rowtide.Version) {
			set(k, "somebody else's")
			set(overwrite.VersionKey(k), "zzzzzzzzzzzzzzzzzz")
		}, written, written, written},
		{"equal version without a value", func(k string, _, newer rowtide.Version) {
			set(overwrite.VersionKey(k), overwrite.PlainVersion(newer, 0))
		}, written, missing, written},
		{"hash", func(k string, _, _ rowtide.Version) { rdb.HSet(t.Context(), k, "f", "v") }, wrong, wrong, wrong},
		{"list for a version", func(k string, _, _ rowtide.Version) { rdb.RPush(t.Context(), overwrite.VersionKey(k), "v") }, wrong, wrong, wrong},
	} {
		for mode, want := range map[overwrite.Mode]overwrite.Result{overwrite.CDC: s.cdc, overwrite.Replay: s.replay, overwrite.Fill: s.fill} {
			for _, v := range versions {
				n++
				key := fmt.Sprintf("%s:%d", prefix, n)
				s.make(key, v[0], v[1])
				before := rdb.Get(t.Context(), key).Val()
				if got := runPlain(t, rdb, mode, key, "ours", v[1], 5000); got != want {
					t.Errorf("%s, %s, %d over %d: %v, want %v", s.name, mode, v[1], v[0], got, want)
				}
				checkPlain(t, rdb, key, before, v[1], want == written)
			}
		}
	}
	for _, mode := range []overwrite.Mode{overwrite.CDC, overwrite.Replay, overwrite.Fill} {
		for _, v := range versions {
			n++
			key := fmt.Sprintf("%s:%d", prefix, n)
			set(key, "newer")
			set(overwrite.VersionKey(key), overwrite.PlainVersion(v[1], 0))
			if got := runPlain(t, rdb, mode, key, "ours", v[0], 5000); got != stale || rdb.Get(t.Context(), key).Val() != "newer" {
				t.Errorf("%s: %d over %d: %v, want stale and untouched", mode, v[0], v[1], got)
			}
		}
	}
}

func checkPlain(t *testing.T, rdb *redis.Client, key, before string, v rowtide.Version, written bool) {
	t.Helper()
	got := rdb.Get(t.Context(), key).Val()
	if !written {
		if got != before {
			t.Errorf("%s holds %q, want it untouched: %q", key, got, before)
		}
		return
	}
	if got != "ours" {
		t.Errorf("%s holds %q, want ours", key, got)
	}
	if gotV, _, ok := overwrite.ParsePlainVersion(rdb.Get(t.Context(), overwrite.VersionKey(key)).Val()); !ok || gotV != v {
		t.Errorf("%s has version %d, want %d", key, gotV, v)
	}
	for _, k := range []string{key, overwrite.VersionKey(key)} {
		if ttl := rdb.PTTL(t.Context(), k).Val(); ttl <= 0 || ttl > 5*time.Second {
			t.Errorf("%s: ttl %s, want ours of 5s", k, ttl)
		}
	}
}

func TestPlainVersion_RoundTrips(t *testing.T) {
	for _, v := range []rowtide.Version{0, 1, 1<<64 - 1, 0x0012345600ABCDEF} {
		got, f, ok := overwrite.ParsePlainVersion(overwrite.PlainVersion(v, rowtide.FlagEmpty|rowtide.FlagDeleted))
		if !ok || got != v || f != rowtide.FlagEmpty|rowtide.FlagDeleted {
			t.Errorf("%d came back as %d with flags %d, %t", v, got, f, ok)
		}
	}
	bad := []string{"", "12", "zzzzzzzzzzzzzzzzzz", "0000000000000001zz", "000000000000000100 "}
	if i := slices.IndexFunc(bad, func(s string) bool { _, _, ok := overwrite.ParsePlainVersion(s); return ok }); i >= 0 {
		t.Errorf("%q was taken for a version", bad[i])
	}
}
