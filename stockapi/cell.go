package stockapi

import (
	"fmt"
	"strconv"
	"strings"
)

// Cell is the unit of order and of placement: one part of an event's stock, its
// holds, limits and outbox, all in one cluster slot. N is 0 while events have one
// cell.
type Cell struct {
	Event string
	N     int
}

// String is "event:cell": the hash tag in Redis and the record key in Kafka.
func (c Cell) String() string { return c.Event + ":" + strconv.Itoa(c.N) }

// parseCell reads "event:cell".
func parseCell(s string) (Cell, error) {
	event, n, ok := strings.Cut(s, ":")
	num, err := strconv.Atoi(n)
	if !ok || err != nil || num < 0 || !validEvent(event) {
		return Cell{}, fmt.Errorf("parse cell %q: want EVENT:NUMBER", s)
	}
	return Cell{Event: event, N: num}, nil
}

// cellKeys spells the keys of one cell.
type cellKeys struct {
	base string // prefix:{event:cell}
}

func keysOf(prefix string, c Cell) cellKeys { return cellKeys{prefix + ":{" + c.String() + "}"} }

func (k cellKeys) meta() string              { return k.base + ":c" }
func (k cellKeys) outbox() string            { return k.base + ":o" }
func (k cellKeys) due() string               { return k.base + ":x" }
func (k cellKeys) hold(id string) string     { return k.base + ":h:" + id }
func (k cellKeys) user(uid string) string    { return k.base + ":u:" + uid }
func (k cellKeys) head() []string            { return []string{k.meta(), k.outbox(), k.due()} }
func (k cellKeys) with(m ...string) []string { return append(k.head(), m...) }

// eventsKey names the set of loaded events. It lies outside the cells' slots, so
// it is written before LOAD: a registered event without a cell is harmless, a cell
// that nobody relays is not.
func eventsKey(prefix string) string { return prefix + ":events" }

// Lengths of what callers name. They bound key sizes and fit the columns.
const (
	maxName = 64
	idLen   = 26
)

// validEvent allows what needs no escape in a hash tag, a hold id and a URL path.
func validEvent(s string) bool { return validName(s, "-_") }

// validID allows, for users, SKUs, orders and clients, what needs no escape in a
// packed record.
func validID(s string) bool { return validName(s, "-_.:@/+=") }

func validName(s, extra string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for i := 0; i < len(s); i++ {
		b := s[i]
		alnum := b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
		if !alnum && strings.IndexByte(extra, b) < 0 {
			return false
		}
	}
	return true
}
