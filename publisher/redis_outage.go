package publisher

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/rowtide/rowtide"
)

// outage is shared by the lanes, so that one trouble is told once and the
// all-clear comes when the last of them is through.
type outage struct {
	mu      sync.Mutex
	waiting int             // lanes that wait
	told    map[string]bool // by module with a key of another type; "" is any trouble
}

func (o *outage) enter() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiting++
}

// news calls tell unless the reason has been told in this outage: a key of another
// type in the module, or with "" anything else. first is false when only the
// reason is new. tell runs under the lock, so that beginning and end stay in order.
func (o *outage) news(module string, tell func(first bool)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	first := len(o.told) == 0
	if !first && (module == "" || o.told[module]) {
		return
	}
	if first {
		o.told = map[string]bool{}
	}
	o.told[module] = true
	tell(first)
}

// leave calls last, under the lock, if the caller was the last lane that waited.
func (o *outage) leave(last func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.waiting--; o.waiting == 0 {
		o.told = nil
		last()
	}
}

// warning is when nodes are to be told of a flush that Redis refuses.
type warning struct {
	entries []rowtide.Entry
	tell    func([]rowtide.Entry) // nil: nobody is

	mu  sync.Mutex
	due time.Time
}

func (w *warning) refused(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tell != nil && !now.Before(w.due) {
		w.due = now.Add(forewarnEvery)
		w.tell(w.entries)
	}
}

// wrongTypeError is a key that holds a hash, list, set or stream.
type wrongTypeError struct{ module, key string }

func (e *wrongTypeError) Error() string {
	return fmt.Sprintf("WRONGTYPE module %s: key %s holds another type; rename or remove it, or change the prefix", e.module, e.key)
}

const missingRight = "grant the user what docs/operations.md lists under Redis rights"

// remedies by how Redis's refusals begin; within a script a missing right has
// other words, on each version its own.
var remedies = []struct{ sign, remedy string }{
	{"WRONGTYPE", "move the key that the message names away"},
	{"OOM", "redis is full: raise maxmemory, or choose an eviction policy"},
	{"READONLY", "this server is a replica: let redis.addrs name the primary, or set redis.master or redis.cluster so that it is found"},
	{"NOPERM", missingRight},
	{"ERR ACL failure in script", missingRight},
	{"ERR The user executing the script", missingRight},
	{"NOAUTH", "check redis.username and redis.password"},
	{"WRONGPASS", "check redis.username and redis.password"},
	{"LOADING", "none is needed: redis is reading its file"},
	{"BUSY", "somebody's script has been running for too long: SCRIPT KILL ends it"},
	{"MISCONF", "redis cannot save to its disk: mend that"},
	{"CLUSTERDOWN", "a part of the cluster has no primary: start it, or promote its replica"},
	{"NOSCRIPT", "none is needed, unless something calls SCRIPT FLUSH all the time"},
}

func remedy(err error) string {
	text := err.Error()
	for _, r := range remedies {
		if strings.HasPrefix(text, r.sign) {
			return r.remedy
		}
	}
	return "make sure that redis is up and can be reached from here"
}
