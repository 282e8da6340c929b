package aggregator

import (
	"time"

	"github.com/rowtide/rowtide"
)

// ticketBytes is what a transaction weighs by itself while its place in the log
// is remembered.
const ticketBytes = 256

// ticket is a transaction's place in line. Tickets are numbered from 1 without
// holes.
type ticket struct {
	pos       rowtide.Position
	version   rowtide.Version
	committed time.Time
	bytes     int
}

// line remembers the transactions that are not yet all done. Lanes finish at
// their own speed; the checkpoint and the watermark move over a transaction when
// every lane has.
type line struct {
	tickets []ticket
	gone    uint64 // tickets that left
	bytes   int
}

// head is the number of the newest ticket.
func (l *line) head() uint64 { return l.gone + uint64(len(l.tickets)) }

func (l *line) add(t ticket) {
	l.tickets = append(l.tickets, t)
	l.bytes += t.bytes
}

// at is ticket n, which must not have left.
func (l *line) at(n uint64) *ticket { return &l.tickets[n-l.gone-1] }

// leave lets all tickets up to n go and folds them into p.
func (l *line) leave(n uint64, p *progress) {
	if n <= l.gone {
		return
	}
	k := int(n - l.gone) //nolint:gosec // at most len(tickets)
	for i := range l.tickets[:k] {
		t := &l.tickets[i]
		p.last = t.pos
		if t.pos.GTID != "" {
			p.gtids = append(p.gtids, t.pos.GTID)
		}
		p.txs++
		l.bytes -= t.bytes
	}
	l.tickets = append(l.tickets[:0], l.tickets[k:]...)
	l.gone = n
}

// progress is what was broadcast since the last checkpoint.
type progress struct {
	last  rowtide.Position
	gtids []string
	txs   int
}

// lane is a group of modules that are written together, in order. Plain rows do
// not wait for the queries of rebuilt documents, nor for a window.
type lane struct {
	index   int
	window  time.Duration
	filling *dirty
	flights []*dirty // taken, not yet broadcast, oldest first
	spare   chan *dirty
	work    chan struct{} // holds a token when filling has something new
}

// settled is the newest ticket up to which nothing is left in the lane.
func (l *lane) settled(head uint64) uint64 {
	switch {
	case len(l.flights) > 0:
		return l.flights[0].first - 1
	case l.filling.pending():
		return l.filling.first - 1
	}
	return head
}
