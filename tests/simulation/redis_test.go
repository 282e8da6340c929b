package simulation

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/hints"
	"github.com/rowtide/rowtide/internal/overwrite"
)

// memRedis is a primary whose replica may take over without its last writes.
// TestMemRedis_OverwriteAgreesWithTheScript holds its rule against the real script.
type memRedis struct {
	w    *world
	dice *dice

	// channels carries Publish and Subscribe and holds no data.
	channels *miniredis.Miniredis

	mu      sync.Mutex
	data    map[string]cell
	undo    []undone // of the last second, oldest first
	down    time.Duration
	process int // that is primary
	offset  int64
	// The lineage before, and the first offset of it that is not ours.
	former    int
	formerEnd int64
}

type cell struct {
	value   string
	expires time.Duration // 0: never
}

type undone struct {
	at     time.Duration
	offset int64
	key    string
	old    cell
	had    bool
}

func newMemRedis(w *world) *memRedis {
	return &memRedis{
		w: w, dice: w.dice(diceRedis), data: map[string]cell{}, process: 1,
		channels: miniredis.NewMiniRedis(),
	}
}

// run evicts keys and fails over, until the world ends.
func (r *memRedis) run() {
	fail := r.dice.gap(r.w.failEvery)
	for r.w.life.Err() == nil {
		pass(r.dice.gap(r.w.evictEvery))
		id := r.dice.n(r.w.keys)
		r.mu.Lock()
		delete(r.data, r.w.key(id).Redis(prefix))
		r.mu.Unlock()
		r.w.trace.note(id, "redis evicts", -1, 0, 0)
		if r.w.now() > fail {
			fail = r.w.now() + r.dice.gap(r.w.failEvery)
			r.failOver(r.dice.between(r.w.failLoses), r.dice.upTo(r.w.failDown))
		}
	}
}

// failOver takes back what was written in the last while.
func (r *memRedis) failOver(lose, down time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.w.now()
	r.former, r.formerEnd = r.process, r.offset+1
	for len(r.undo) > 0 && r.undo[len(r.undo)-1].at > now-lose {
		u := r.undo[len(r.undo)-1]
		r.undo = r.undo[:len(r.undo)-1]
		if delete(r.data, u.key); u.had {
			r.data[u.key] = u.old
		}
		r.formerEnd = u.offset
		if id, err := strconv.Atoi(u.key[strings.LastIndexByte(u.key, ':')+1:]); err == nil {
			r.w.trace.note(id, "redis fails over: lost", -1, 0, 0)
		}
	}
	r.process++
	r.offset = r.formerEnd - 1
	r.down = now + down
	r.w.trace.note(everyKey, "redis fails over", -1, 0, 0)
}

// set stores; mu is held.
func (r *memRedis) set(key, value string, ttl time.Duration) {
	now := r.w.now()
	old, had := r.data[key]
	r.offset++
	r.undo = append(r.undo, undone{now, r.offset, key, old, had})
	if r.undo[0].at < now-2*time.Second {
		n := 0
		for r.undo[n].at < now-time.Second {
			n++
		}
		r.undo = append(r.undo[:0], r.undo[n:]...)
	}
	c := cell{value: value}
	if ttl > 0 {
		c.expires = now + ttl
	}
	r.data[key] = c
}

// get is what a key holds; mu is held.
func (r *memRedis) get(key string) (string, bool) {
	c, ok := r.data[key]
	if ok && c.expires > 0 && r.w.now() >= c.expires {
		return "", false
	}
	return c.value, ok
}

// fenced is the script's first step: pairs end with the writer's term if keys end
// with the term's key. Without both they are returned as they are. mu is held.
func (r *memRedis) fenced(keys, pairs []any) (_, _ []any, fenced bool) {
	if len(pairs)%2 == 0 {
		return keys, pairs, false
	}
	last := len(keys) - 1
	newest, _ := r.get(keys[last].(string))
	stored, _ := strconv.ParseUint(newest, 10, 64)
	return keys[:last], pairs[:len(pairs)-1], stored > pairs[len(pairs)-1].(uint64) && !r.w.off.fence
}

// overwrite is the script for one key; mu is held.
func (r *memRedis) overwrite(mode overwrite.Mode, key, envelope string, ttl time.Duration) overwrite.Result {
	have, ok := r.get(key)
	if !ok {
		if mode == overwrite.Replay {
			return overwrite.Missing
		}
	} else if old, ok := versionOf(have); ok && !r.w.off.compare {
		next, _ := versionOf(envelope)
		switch {
		case old > next:
			return overwrite.Stale
		case old == next && mode == overwrite.Fill:
			return overwrite.Tie
		}
	}
	r.set(key, envelope, ttl)
	return overwrite.Written
}

func versionOf(envelope string) (rowtide.Version, bool) {
	return rowtide.EnvelopeVersion([]byte(envelope[:min(len(envelope), 12)]))
}

// do answers one command the way the server does; mu is held.
func (r *memRedis) do(cmd redis.Cmder, by int) error {
	args := cmd.Args()
	switch c := cmd.(type) {
	case *redis.SliceCmd: // MGET
		out := make([]any, len(args)-1)
		for i, k := range args[1:] {
			if v, ok := r.get(k.(string)); ok {
				out[i] = v
			}
		}
		c.SetVal(out)
		return nil
	case *redis.Cmd:
		switch cmd.Name() {
		case "del": // of tests: an eviction
			delete(r.data, args[1].(string))
			return nil
		case "evalsha":
			if args[1] == overwriteHash {
				c.SetVal(r.eval(args, by))
			} else {
				c.SetVal(r.lease(args[3:]))
			}
			return nil
		}
	case *redis.StringCmd:
		switch cmd.Name() {
		case "get":
			v, ok := r.get(args[1].(string))
			if !ok {
				return redis.Nil
			}
			c.SetVal(v)
			return nil
		case "info":
			c.SetVal(r.info())
			return nil
		}
	case *redis.StatusCmd:
		switch cmd.Name() {
		case "ping":
			c.SetVal("PONG")
			return nil
		case "set":
			r.set(args[1].(string), fmt.Sprint(args[2]), 0)
			c.SetVal("OK")
			return nil
		}
	case *redis.MapStringInterfaceCmd:
		if cmd.Name() == "hello" { // of a subscription's connection
			return nil
		}
	case *redis.IntCmd:
		if cmd.Name() == "publish" {
			c.SetVal(r.publish(args[1].(string), string(args[2].([]byte))))
			return nil
		}
	}
	return fmt.Errorf("the simulation's redis does not know %v; add it to memRedis.do", args[0])
}

// publish passes a message on. Hints get lost and come late, which nobody may mind;
// what nodes tell each other of loads they wait for.
func (r *memRedis) publish(channel, message string) int64 {
	if channel == hints.Channel(nil, prefix) {
		if r.dice.chance(r.w.hintsLost) {
			return 0
		}
		if r.dice.chance(r.w.late) {
			by := r.dice.upTo(r.w.lateBy)
			r.w.wg.Go(func() {
				pass(by)
				r.channels.Publish(channel, message)
			})
			return 0
		}
	}
	return int64(r.channels.Publish(channel, message))
}

// lease is localsync's lease.lua; mu is held.
func (r *memRedis) lease(args []any) string {
	n := min(len(args)-2, 2) // one key and free, or two and take
	name := args[0].(string)
	argv := args[n:]
	lease, there := r.get(name)
	token := argv[1].(string)
	mine := there && strings.HasPrefix(lease, token)
	if argv[0] == "free" {
		if !mine {
			return ""
		}
		r.set(name, "", time.Millisecond)
		return lease[len(token):]
	}
	value, _ := r.get(args[1].(string))
	if value[:min(len(value), rowtide.EnvelopeHeader)] != string(argv[3].([]byte)) {
		return "moved"
	}
	if mine {
		return "taken"
	}
	if lease == "" {
		r.set(name, token, millis(argv[2]))
		return "taken"
	}
	if waiter := argv[4].(string); waiter != "" && !strings.Contains(lease[len(token):], waiter) {
		c := r.data[name]
		c.value += waiter
		r.data[name] = c
	}
	return "held"
}

// millis is a script's argument.
func millis(arg any) time.Duration {
	ms := arg.(int64)
	return time.Duration(ms) * time.Millisecond
}

var overwriteHash = redis.NewScript(overwrite.Script).Hash()

// eval runs the overwrite script; mu is held.
func (r *memRedis) eval(args []any, by int) []any {
	n := args[2].(int)
	keys, pairs, fenced := r.fenced(args[3:3+n], args[4+n:])
	mode := overwrite.Mode(args[3+n].(string))
	out := make([]any, len(keys))
	for i, k := range keys {
		envelope, ttl := string(pairs[2*i].([]byte)), millis(pairs[2*i+1])
		id, _ := strconv.Atoi(k.(string)[strings.LastIndexByte(k.(string), ':')+1:])
		v, _ := versionOf(envelope)
		code := overwrite.Fenced
		if !fenced {
			code = r.overwrite(mode, k.(string), envelope, ttl)
		}
		out[i] = int64(code)
		r.w.trace.note(id, "redis "+string(mode)+": "+code.String(), by, seqIn(envelope[rowtide.EnvelopeHeader:]), v)
	}
	return out
}

// info is what the failover watch looks at; mu is held.
func (r *memRedis) info() string {
	if r.w.off.repair {
		return "role:master\r\nrun_id:1\r\nmaster_replid:1\r\nmaster_repl_offset:" + strconv.FormatInt(r.offset+1<<40, 10) + "\r\n"
	}
	former := "0000"
	if r.former > 0 {
		former = "lineage" + itoa(r.former)
	}
	return fmt.Sprintf("role:master\r\nrun_id:run%d\r\nmaster_replid:lineage%d\r\nmaster_repl_offset:%d\r\nmaster_replid2:%s\r\nsecond_repl_offset:%d\r\n",
		r.process, r.process, r.offset, former, r.formerEnd)
}

// entry is what the auditor sees: no latency, no expiry work.
func (r *memRedis) entry(id int) (rowtide.Entry, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.w.key(id)
	v, ok := r.get(k.Redis(prefix))
	if !ok {
		return rowtide.Entry{}, false
	}
	e, err := rowtide.DecodeEnvelope(k, []byte(v))
	return e, err == nil
}
