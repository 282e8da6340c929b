package simulation

import (
	"context"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/overwrite"
)

// both sends the same commands to memRedis and to miniredis, which runs the real
// scripts.
type both struct {
	t        *testing.T
	mem, lua *redis.Client
	mr       *miniredis.Miniredis
}

func newBoth(t *testing.T) *both {
	w := &world{start: time.Now(), life: t.Context(), rates: rates{keys: 10}}
	w.trace = newTrace(w)
	mr := miniredis.RunT(t)
	b := &both{t: t, mem: newMemRedis(w).client(w.dice(1), 0, byDaemon), lua: redis.NewClient(&redis.Options{Addr: mr.Addr()}), mr: mr}
	t.Cleanup(func() { b.mem.Close(); b.lua.Close() })
	return b
}

// same runs one script call on both and compares what they answer.
func (b *both) same(script *redis.Script, keys []string, args ...any) {
	b.t.Helper()
	ctx := context.Background()
	if err := script.Load(ctx, b.lua).Err(); err != nil {
		b.t.Fatal(err)
	}
	mem, memErr := b.mem.EvalSha(ctx, script.Hash(), keys, args...).Result()
	lua, luaErr := b.lua.EvalSha(ctx, script.Hash(), keys, args...).Result()
	if memErr != nil || luaErr != nil || !reflect.DeepEqual(mem, lua) {
		b.t.Fatalf("%v %.60q: %v, %v; the script says %v, %v", keys, args, mem, memErr, lua, luaErr)
	}
}

// alike compares what keys hold.
func (b *both) alike(keys ...string) {
	b.t.Helper()
	for _, k := range keys {
		mem, memErr := b.mem.Get(context.Background(), k).Result()
		lua, luaErr := b.lua.Get(context.Background(), k).Result()
		if mem != lua || (memErr == nil) != (luaErr == nil) {
			b.t.Fatalf("%s holds %q, %v; the script leaves %q, %v", k, mem, memErr, lua, luaErr)
		}
	}
}

func TestMemRedis_OverwriteAgreesWithTheScript(t *testing.T) {
	b := newBoth(t)
	d := (&world{seed: *seedFlag}).dice(1)
	script := redis.NewScript(overwrite.Script)
	modes := []overwrite.Mode{overwrite.CDC, overwrite.Replay, overwrite.Fill}
	versions := []rowtide.Version{1, 2, 1 << 32, 1<<32 + 1, 1 << 53, 1<<53 + 1, 1 << 63, 1<<64 - 1}
	terms := []uint64{1, 2, 5, 9, 12, 13}
	for range 3000 {
		fence := d.chance(0.5)
		if d.chance(0.1) { // another election, or, after a failover, an earlier one
			b.set(termKey, itoa(1+d.n(12)))
		}
		keys, args := []string{}, []any{string(modes[d.n(3)])}
		for range 1 + d.n(2) {
			k := keyOf(len(keys)*5 + d.n(5))
			e := rowtide.Entry{Key: k, Version: versions[d.n(len(versions))], BuiltAt: time.UnixMilli(1), Payload: payloadOf(1, int64(d.n(100)))}
			keys, args = append(keys, k.Redis(prefix)), append(args, e.AppendEnvelope(nil), int64(d.n(2)*3_600_000))
		}
		if fence {
			keys, args = append(keys, termKey), append(args, terms[d.n(len(terms))])
		}
		b.same(script, keys, args...)
		b.alike(keys...)
		if d.chance(0.1) { // an eviction; the next Lua call sees a missing key
			b.drop(keys[0])
		}
	}
}

func (b *both) set(key, value string) {
	for _, rdb := range []*redis.Client{b.mem, b.lua} {
		if err := rdb.Set(context.Background(), key, value, 0).Err(); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *both) drop(key string) {
	if err := b.lua.Del(context.Background(), key).Err(); err != nil {
		b.t.Fatal(err)
	}
	b.mem.Do(context.Background(), "del", key)
}

func TestMemRedis_LeaseAgreesWithTheScript(t *testing.T) {
	source, err := os.ReadFile("../../localsync/lease.lua")
	if err != nil {
		t.Fatal(err)
	}
	b := newBoth(t)
	d := (&world{seed: *seedFlag}).dice(1)
	script := redis.NewScript(string(source))
	token := func(n int) string { return "0123456789abcdef0123456789abcde" + itoa(n) }
	waiter := func(n int) string { return "0123456789abcde" + itoa(n) }
	for range 2000 {
		lease, key := "rowtide:~lease:{"+itoa(d.n(3))+"}", keyOf(0).Redis(prefix)
		if d.chance(0.4) {
			b.same(script, []string{lease}, "free", token(d.n(4)))
			b.drop(lease) // a freed one ends in a millisecond, which is not compared
			continue
		}
		seen := []byte{}
		if d.chance(0.1) {
			seen = []byte("something")
		}
		who := ""
		if d.chance(0.8) {
			who = waiter(d.n(5))
		}
		b.same(script, []string{lease, key}, "take", token(d.n(4)), int64(60_000), seen, who)
		b.alike(lease)
	}
}
