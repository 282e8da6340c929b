package overwrite_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/overwrite"
)

func TestFence_Miniredis(t *testing.T) { checkFence(t, onMiniredis) }

// Both scripts: a writer of an earlier term than the stored one writes nothing, not
// even under missing keys; the codes are still one per entry.
func checkFence(t *testing.T, open func(*testing.T) (*redis.Client, string)) {
	t.Helper()
	rdb, prefix := open(t)
	for n, c := range []struct {
		stored any // nil: none
		term   uint64
		want   overwrite.Result
	}{
		{nil, 1, overwrite.Written},
		{1, 1, overwrite.Written},
		{1, 2, overwrite.Written},
		{2, 1, overwrite.Fenced},
		{10, 9, overwrite.Fenced}, // as text it would be the other way round
		{9, 10, overwrite.Written},
		{1 << 40, 1<<40 - 1, overwrite.Fenced},
	} {
		term := fmt.Sprintf("%s:term:%d", prefix, n)
		if c.stored != nil {
			if err := rdb.Set(t.Context(), term, c.stored, 0).Err(); err != nil {
				t.Fatal(err)
			}
		}
		for _, count := range []int{1, 2, 3, 50} {
			for _, plain := range []bool{false, true} {
				script, keys, args := overwrite.Script, []string{}, []any{string(overwrite.CDC)}
				var want []overwrite.Result
				for i := range count {
					key := fmt.Sprintf("%s:fence:%d:%d:%t:%d", prefix, n, count, plain, i)
					want = append(want, c.want)
					if plain {
						script = overwrite.PlainScript
						keys, args = append(keys, key, overwrite.VersionKey(key)), append(args, "ours", overwrite.PlainVersion(1, 0), 5000)
					} else {
						keys, args = append(keys, key), append(args, envelope(rowtide.Version(1), "ours"), 5000)
					}
				}
				codes, err := rdb.Eval(t.Context(), script, append(slices.Clone(keys), term), append(args, c.term)...).Int64Slice()
				if err != nil {
					t.Fatal(err)
				}
				var got []overwrite.Result
				for _, code := range codes {
					got = append(got, overwrite.Result(code))
				}
				if !slices.Equal(got, want) {
					t.Errorf("term %d over %v, %d keys, plain %t: %v, want %v", c.term, c.stored, count, plain, got, want)
				}
				there := rdb.Exists(t.Context(), keys...).Val()
				if written := c.want == overwrite.Written; written != (there == int64(len(keys))) || !written && there > 0 {
					t.Errorf("term %d over %v, %d keys, plain %t: %d keys are there", c.term, c.stored, count, plain, there)
				}
			}
		}
	}
}
