package simulation

import (
	"reflect"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

// How the protections of a node are switched off, see off.

// foreknown is a load that answers at once with what it has read before.
func (n *node) foreknown(ids []int64, lag time.Duration) map[int64]int64 {
	rows := n.w.db.read(ids, lag+n.loadTime())
	for _, id := range ids {
		n.w.trace.note(int(id), "read before it was asked", n.id, int(rows[id]), 0)
	}
	return rows
}

// lost remembers what loads have read during which records were missed.
type lost struct {
	mu     sync.Mutex
	missed [64]time.Duration // by partition, when last
	rows   map[int64]reading
}

// reading is what a load has read, and until when it is given again.
type reading struct{ seq, until int64 }

// soon is how soon localsync does again what was overtaken, at the latest.
const soon = 500 * time.Millisecond

func (l *lost) at(n *node, part int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.missed {
		if part < 0 || p == int(part) {
			l.missed[p] = n.w.now()
		}
	}
}

// keep remembers rows that were read before records were missed, and puts what it
// remembers in the place of others.
func (l *lost) keep(n *node, began time.Duration, ids []int64, rows map[int64]int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := n.w.now()
	for _, id := range ids {
		if o, ok := l.rows[id]; ok && o.until > int64(now) {
			rows[id] = o.seq
			if o.seq == 0 {
				delete(rows, id)
			}
		}
		delete(l.rows, id)
		if l.missed[keyOf(int(id)).Partition(n.w.partitions)] >= began {
			if l.rows == nil {
				l.rows = map[int64]reading{}
			}
			l.rows[id] = reading{rows[id], int64(now + soon)}
		}
	}
}

// forgetful has the node forget that it forgot floors. There is no way to that from
// outside.
func forgetful(c *localsync.Cache) []*atomic.Uint64 {
	var out []*atomic.Uint64
	parts := reflect.ValueOf(c).Elem().FieldByName("parts")
	for i := range parts.Len() {
		out = append(out, (*atomic.Uint64)(parts.Index(i).FieldByName("forgotten").Addr().UnsafePointer()))
	}
	return out
}

// glimpse is what Redis gave at a first look.
type glimpse struct {
	value string
	until time.Duration
}

// spoil changes what Redis gives a node; the lock of memRedis is held.
func (w wire) spoil(cmd redis.Cmder) {
	world := w.r.w
	o := &world.off
	c, ok := cmd.(*redis.SliceCmd)
	if !ok || w.by < 0 || !o.behind && !o.look && !o.previous {
		return
	}
	l := world.nodes[w.by].now.Load()
	if l == nil {
		return
	}
	values := c.Val()
	for i, arg := range c.Args()[1:] {
		k := keyNamed(arg.(string))
		if o.previous && values[i] == nil {
			values[i] = w.before(k)
		}
		value, ok := values[i].(string)
		if !ok {
			continue
		}
		floor := l.cache.Floor(k)
		if o.look {
			value = w.again(arg.(string), value, floor)
		}
		if o.behind {
			value = atLeast(k, value, floor)
		}
		values[i] = value
	}
}

func keyNamed(redisName string) rowtide.Key {
	part := strings.Split(redisName, ":")
	space, err := strconv.ParseUint(part[2], 10, 16)
	if err != nil {
		panic(err)
	}
	return rowtide.Key{Module: part[1], Version: uint16(space), ID: part[3]}
}

// before is what the key space before holds, as if it were of this one.
func (w wire) before(k rowtide.Key) any {
	former := k
	former.Version--
	value, ok := w.r.get(former.Redis(prefix))
	if !ok {
		return nil
	}
	e, err := rowtide.DecodeEnvelope(former, []byte(value))
	if err != nil {
		panic(err)
	}
	e.Key = k
	return string(e.AppendEnvelope(nil))
}

func atLeast(k rowtide.Key, value string, floor rowtide.Version) string {
	e, err := rowtide.DecodeEnvelope(k, []byte(value))
	if err != nil {
		panic(err)
	}
	e.Version = max(e.Version, floor)
	return string(e.AppendEnvelope(nil))
}

// again gives at a second look what the first one gave.
func (w wire) again(name, value string, floor rowtide.Version) string {
	now := w.r.w.now()
	if g, ok := w.seen[name]; ok && now < g.until {
		delete(w.seen, name)
		return g.value
	}
	if v, _ := versionOf(value); v < floor {
		w.seen[name] = glimpse{value, now + soon}
	}
	return value
}
