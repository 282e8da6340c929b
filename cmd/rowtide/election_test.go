package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

func leases(t *testing.T, n int) (*miniredis.Miniredis, []*lease) {
	t.Helper()
	mini := miniredis.RunT(t)
	var out []*lease
	for range n {
		rdb := redis.NewClient(&redis.Options{Addr: mini.Addr()})
		l := newLease(rdb, "shop", "main", time.Second, slog.New(slog.DiscardHandler))
		t.Cleanup(func() { rdb.Close() })
		t.Cleanup(l.release)
		out = append(out, l)
	}
	return mini, out
}

// try asks once.
func (l *lease) try(t *testing.T) uint64 {
	t.Helper()
	n, err := l.call(t.Context(), l.ttl, l.term)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestLease_OneOfTwoIsElectedAndTermsGrow(t *testing.T) {
	mini, l := leases(t, 2)
	if err := l[0].win(t.Context()); err != nil || l[0].term == 0 {
		t.Fatalf("term %d, %v", l[0].term, err)
	}
	if got := l[1].try(t); got != 0 {
		t.Fatalf("a second daemon was elected for term %d", got)
	}
	first := l[0].term
	l[0].release()
	mini.FastForward(2 * time.Millisecond)
	if err := l[1].win(t.Context()); err != nil || l[1].term <= first {
		t.Fatalf("after the release: term %d, %v, want one after %d", l[1].term, err, first)
	}
}

func TestLease_ThatEndedIsRenewedUnlessSomebodyWasElected(t *testing.T) {
	mini, l := leases(t, 2)
	if err := l[0].win(t.Context()); err != nil {
		t.Fatal(err)
	}
	mini.FastForward(time.Minute)
	if got := l[0].try(t); got != l[0].term {
		t.Fatalf("renewed for term %d, want %d", got, l[0].term)
	}
	mini.FastForward(time.Minute)
	if err := l[1].win(t.Context()); err != nil {
		t.Fatal(err)
	}
	mini.FastForward(time.Minute) // the second one's has ended too
	if got := l[0].try(t); got != 0 {
		t.Errorf("term %d was renewed after term %d", got, l[1].term)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	l[0].keep()
	if err := l[0].hold(ctx); !errors.Is(err, errDeposed) {
		t.Errorf("%v, want errDeposed", err)
	}
	l[0].release() // must not take the other's away
	if got := l[1].try(t); got != l[1].term {
		t.Errorf("the second one's renewal gives %d", got)
	}
}

func TestLease_OutageOfRedisDeposesNobody(t *testing.T) {
	mini, l := leases(t, 1)
	if err := l[0].win(t.Context()); err != nil {
		t.Fatal(err)
	}
	l[0].keep()
	mini.SetError("LOADING wait")
	ctx, cancel := context.WithTimeout(t.Context(), l[0].ttl)
	defer cancel()
	if err := l[0].hold(ctx); err != nil {
		t.Errorf("%v, want to go on", err)
	}
	mini.SetError("")
	if got := l[0].try(t); got != l[0].term {
		t.Errorf("renewed for term %d, want %d", got, l[0].term)
	}
}

// A daemon connects, loads schemas and announces before it looks at its lease.
func TestLease_IsKeptFromTheElectionOn(t *testing.T) {
	mini, l := leases(t, 2)
	if err := l[0].win(t.Context()); err != nil {
		t.Fatal(err)
	}
	l[0].keep()
	for range 6 { // three leases
		<-time.After(l[0].ttl / 2)
		mini.FastForward(l[0].ttl / 2)
		if got := l[1].try(t); got != 0 {
			t.Fatalf("another was elected for term %d while the first was starting", got)
		}
	}
	l[0].release()
	mini.FastForward(2 * time.Millisecond)
	<-time.After(l[0].ttl / renewals) // a renewal that outlived the release would take it back
	if got := l[1].try(t); got == 0 {
		t.Error("the lease is not free after the release")
	}
}

// Whoever holds the lease puts the term back; whoever does not cannot know that
// nobody was elected meanwhile.
func TestLease_TermsGrowWhereRedisHasLostTheNewest(t *testing.T) {
	mini, l := leases(t, 2)
	if err := l[0].win(t.Context()); err != nil {
		t.Fatal(err)
	}
	key := l[0].termKey()
	mini.Del(key)
	if got := l[0].try(t); got != l[0].term || !mini.Exists(key) {
		t.Fatalf("renewed for term %d, want %d and its key back: %t", got, l[0].term, mini.Exists(key))
	}
	mini.FastForward(time.Minute)
	mini.Del(key)
	if got := l[0].try(t); got != 0 {
		t.Fatalf("renewed for term %d without lease and term", got)
	}
	if err := l[1].win(t.Context()); err != nil || l[1].term <= l[0].term {
		t.Fatalf("elected for term %d, %v, want one after %d", l[1].term, err, l[0].term)
	}
}
