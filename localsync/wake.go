package localsync

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// wake is the news that ends a wait for another node's load.
type wake byte

const (
	// look: Redis may have the value now.
	look wake = '+'
	// fend: the other node has nothing to share, the waiter loads for itself.
	fend wake = '-'
)

// deafFor is how long no wait is tried after Redis refused the subscription.
const deafFor = 10 * time.Second

// wakes hears which loads of other nodes have ended, by one subscription to the
// node's own channel. It is opened at the first wait; go-redis opens it again
// after failures.
type wakes struct {
	rdb     redis.UniversalClient
	channel string
	timeout time.Duration
	log     *slog.Logger
	life    context.Context // ends the subscription

	mu      sync.Mutex
	waiting map[uint64][]*queue // by hash of the local name
	state   subscription
	deafTo  time.Time
	done    chan struct{} // closed when the subscriber has ended
}

type subscription uint8

const (
	unopened subscription = iota
	opening
	open
)

// queue is the flights of one read that wait. The wakes' lock guards ready.
type queue struct {
	flights map[uint64][]*flight // by hash, which two names may share
	ready   map[uint64]wake
	signal  chan struct{} // one is enough: ready holds the rest
}

// enter makes a queue that hears of fs from now on.
func (w *wakes) enter(fs []*flight) *queue {
	q := &queue{flights: make(map[uint64][]*flight, len(fs)), ready: map[uint64]wake{}, signal: make(chan struct{}, 1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range fs {
		if len(q.flights[f.hash]) == 0 {
			w.waiting[f.hash] = append(w.waiting[f.hash], q)
		}
		q.flights[f.hash] = append(q.flights[f.hash], f)
	}
	return q
}

// leave takes flights out of the queue.
func (w *wakes) leave(q *queue, fs []*flight) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range fs {
		rest := slices.DeleteFunc(q.flights[f.hash], func(o *flight) bool { return o == f })
		q.flights[f.hash] = rest
		if len(rest) == 0 {
			w.forget(q, f.hash)
		}
	}
}

// all empties the queue.
func (w *wakes) all(q *queue) []*flight {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []*flight
	for hash, fs := range q.flights {
		out = append(out, fs...)
		w.forget(q, hash)
	}
	return out
}

// take empties the queue of what there is news of.
func (w *wakes) take(q *queue) (looks, fends []*flight) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for hash, how := range q.ready {
		if how == fend {
			fends = append(fends, q.flights[hash]...)
		} else {
			looks = append(looks, q.flights[hash]...)
		}
		w.forget(q, hash)
	}
	clear(q.ready)
	return looks, fends
}

// forget needs the lock.
func (w *wakes) forget(q *queue, hash uint64) {
	delete(q.flights, hash)
	others := slices.DeleteFunc(w.waiting[hash], func(o *queue) bool { return o == q })
	if len(others) == 0 {
		delete(w.waiting, hash)
	} else {
		w.waiting[hash] = others
	}
}

// tell needs the lock.
func (w *wakes) tell(hash uint64, how wake) {
	for _, q := range w.waiting[hash] {
		q.ready[hash] = how
		select {
		case q.signal <- struct{}{}:
		default:
		}
	}
}

func (w *wakes) tellAll(how wake) {
	for hash := range w.waiting {
		w.tell(hash, how)
	}
}

// listen sees to it that the subscription is open or about to be; all who wait
// are told how that went. False means that Redis refused it lately.
func (w *wakes) listen() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state != unopened {
		return true
	}
	if time.Now().Before(w.deafTo) || w.life.Err() != nil {
		return false
	}
	w.state, w.done = opening, make(chan struct{})
	go w.subscribe(w.done)
	return true
}

func (w *wakes) subscribe(done chan struct{}) {
	defer close(done)
	ps := w.rdb.Subscribe(w.life, w.channel)
	stop := context.AfterFunc(w.life, func() { _ = ps.Close() })
	defer stop()
	if _, err := ps.ReceiveTimeout(w.life, w.timeout); err != nil {
		_ = ps.Close()
		w.refused(err)
		return
	}
	w.opened()
	for msg := range ps.ChannelWithSubscriptions() {
		switch msg := msg.(type) {
		case *redis.Message:
			w.hear(msg.Payload)
		case *redis.Subscription:
			// Open again: what was said meanwhile is lost.
			w.opened()
		}
	}
}

// opened has everybody look: what was said before is lost.
func (w *wakes) opened() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = open
	w.tellAll(look)
}

func (w *wakes) refused(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state, w.deafTo = unopened, time.Now().Add(deafFor)
	w.tellAll(fend)
	if w.life.Err() == nil {
		w.log.Warn("cannot subscribe in redis; this node loads what it lacks without waiting for others",
			"channel", w.channel, "error", err, "remedy", "docs/operations.md, Redis rights")
	}
}

// hear takes in one message: pairs of news and hash.
func (w *wakes) hear(payload string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for b := []byte(payload); len(b) >= newsSize; b = b[newsSize:] {
		w.tell(binary.BigEndian.Uint64(b[1:]), wake(b[0]))
	}
}

// newsSize is one byte of wake and eight of hash.
const newsSize = 9

func appendNews(dst []byte, how wake, hash uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, byte(how)), hash)
}

// close waits for the end of the subscriber, which life's end brings about.
func (w *wakes) close() {
	w.mu.Lock()
	done := w.done
	w.mu.Unlock()
	if done != nil {
		<-done
	}
}

// channelOf is where the node of this name listens.
func channelOf(prefix, name string) string { return fmt.Sprintf("%s:~node:%s", prefix, name) }
