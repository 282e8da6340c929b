package localsync

import (
	"bytes"
	"encoding/json"
	"reflect"
)

// judge says what the copies mean, the most important first.
func (i *inspection) judge() []string {
	var out []string
	say := func(s string) { out = append(out, s) }
	local, rds, loader := &i.Local, i.Redis, i.Loader
	switch compare(local, rds) {
	case alike:
		say("This node and Redis are equal.")
	case alikeJSON:
		say("This node and Redis hold the same JSON, written differently.")
	case unlike:
		say(i.whyUnlike())
	case oneSided:
		if local.there() {
			say("Only this node has it: the key has left Redis (its TTL, or Redis made room), and a read that goes further loads it.")
		} else {
			say("Only Redis has it: the next read here takes it from there.")
		}
	case nowhere:
		say("Neither this node nor Redis has it: the next read asks the loader.")
	case unknown:
		say("This node and Redis cannot be compared.")
	}
	if loader.State == "not_asked" || rds == nil {
		return out
	}
	switch compare(rds, loader) {
	case alike:
		say("Redis and the loader are equal.")
	case alikeJSON:
		say("Redis and the loader have the same JSON, written differently.")
	case unlike:
		say("Redis and the loader DIFFER. Inspect again: a change may be on its way. If it stays, the loader and the daemon make the value differently, or a change was lost: run verify.")
	case oneSided, nowhere:
		say("Redis does not have it; the loader answered.")
	case unknown:
		say("Redis and the loader cannot be compared.")
	}
	return out
}

func (i *inspection) whyUnlike() string {
	local, rds := &i.Local, i.Redis
	switch {
	case local.Version < rds.Version && (i.Floor > local.Version || !i.Served):
		return "This node's copy is OLDER than Redis, and known to be: the next read takes Redis's."
	case local.Version < rds.Version:
		return "This node's copy is OLDER than Redis and still served: the invalidation has not come yet. If it stays, look at the bus."
	case local.Version > rds.Version:
		return "Redis is BEHIND this node: a replica, or a failover that lost writes. This node does not step back."
	}
	return "Both have the same version and DIFFER: a loaded value and the change itself, or the module's key or codec is not the daemon's."
}

func (v *copyOf) there() bool { return v.State == "value" || v.State == "empty" }

type likeness uint8

const (
	unknown likeness = iota + 1
	nowhere
	oneSided
	unlike
	alikeJSON
	alike
)

func compare(a, b *copyOf) likeness {
	for _, v := range []*copyOf{a, b} {
		if v.State == "error" || v.State == "not_asked" || v.State == "unusable" {
			return unknown
		}
	}
	switch {
	case !a.there() && !b.there():
		return nowhere
	case a.there() != b.there():
		return oneSided
	case a.State != b.State:
		return unlike
	case a.State == "empty", bytes.Equal(a.payload, b.payload):
		return alike
	case sameJSON(a.payload, b.payload):
		return alikeJSON
	}
	return unlike
}

func sameJSON(a, b []byte) bool {
	var x, y any
	return decodeNumbers(a, &x) && decodeNumbers(b, &y) && reflect.DeepEqual(x, y)
}

// decodeNumbers keeps the digits of numbers, which a float64 would round.
func decodeNumbers(b []byte, v *any) bool {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return d.Decode(v) == nil && !d.More()
}
