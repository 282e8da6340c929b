package localsync_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

// garbled is a payload in a sound envelope that the codec refuses.
const garbled = "\x00garbled"

// loaderless is a module that knows only what the daemon wrote.
func (n *node) loaderless() *events {
	n.t.Helper()
	m, err := localsync.NewModule[int64, string](n.cache, localsync.ModuleConfig[int64]{Name: "event"}, text{}, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	return m
}

func TestBadInput_ReadersOfAValueThatTheCodecRefusesShareOneLoad(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.commit(1, 100, garbled)
	o.set(1, "right")
	reached, release := pause(o)
	asked := []<-chan answer{ask(t.Context(), m, 1)}
	await(t, "the load", reached)
	for range 49 {
		asked = append(asked, ask(t.Context(), m, 1))
	}
	eventually(t, "all have seen it", func() bool { return n.module("event").Corrupt == 50 })
	close(release)
	for _, ch := range asked {
		if a := reply(t, ch); a.err != nil || a.value != "right" || a.info.Version != 100 {
			t.Fatalf("got %+v, want the loader's", a)
		}
	}
	// One may have seen the bytes and come to share the load after its end.
	if got := o.loads(); got > 5 {
		t.Fatalf("%d loads for 50 readers, want one", got)
	}
}

// The loader's value is of the same version as the bytes, and takes their place.
func TestBadInput_ValueThatTheCodecRefusesIsReplacedByTheLoadersOfItsVersion(t *testing.T) {
	for name, value := range map[string]string{"a value": "right", "absent": ""} {
		t.Run(name, func(t *testing.T) {
			n, o := newNode(t), newOrigin()
			m := n.events(o)
			n.settle(100)
			n.commit(1, 100, garbled)
			if value != "" {
				o.set(1, value)
			}
			want(t, m, 1, value)
			for range 5 {
				if info := want(t, m, 1, value); info.Level != localsync.LevelLocal || info.Stale {
					t.Fatalf("%+v, want it from here", info)
				}
			}
			if s := n.module("event"); s.Loads != 1 || s.Corrupt != 1 {
				t.Fatalf("%+v, want it seen and loaded once", s)
			}
		})
	}
}

// Redis has the bytes still, which is no news: nobody is to be waited for, and
// nothing to be looked at again.
func TestBadInput_LoadAfterTheCodecRefusedAValueAsksForNoLease(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.commit(1, 90, garbled)
	n.hold(1)
	o.set(1, "right")
	want(t, m, 1, "right")
	if s := n.module("event"); s.Leases+s.LeaseWaits != 0 || s.Loads != 1 {
		t.Fatalf("%+v, want one load and no lease", s)
	}
	if got := n.commands("EVALSHA"); got != 1 {
		t.Fatalf("%d scripts, want the fill only", got)
	}
}

func TestBadInput_ValueThatTheCodecRefusesIsNoLastValue(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	n.commit(1, 90, garbled)
	away := errors.New("database is away")
	o.fail(away)
	for range 2 { // from Redis, then from here
		if _, err := m.Get(t.Context(), 1); !errors.Is(err, localsync.ErrLoad) || !errors.Is(err, away) {
			t.Fatalf("got %v, want ErrLoad with its cause", err)
		}
	}
}

// Where there is no loader to ask, it is not taken for absent either.
func TestBadInput_ValueThatTheCodecRefusesWithoutALoaderIsAnError(t *testing.T) {
	n := newNode(t)
	m := n.loaderless()
	n.commit(1, 90, garbled)
	for range 2 {
		if _, err := m.Get(t.Context(), 1); !errors.Is(err, localsync.ErrLoad) || !strings.Contains(err.Error(), "damaged, foreign") {
			t.Fatalf("got %v, want ErrLoad that says why", err)
		}
	}
	n.commit(1, 95, "right")
	want(t, m, 1, "right")
}

// eachClient is a client that the node may send no MGET, such as a cluster's.
type eachClient struct{ *redis.Client }

func TestBadInput_KeyOfAnotherTypeWithoutALoaderIsAnErrorNotAbsence(t *testing.T) {
	for name, client := range map[string]func(*localsync.Options){
		"by MGET": func(*localsync.Options) {},
		"by GETs": func(o *localsync.Options) { o.Redis = eachClient{o.Redis.(*redis.Client)} },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, client)
			m := n.loaderless()
			if _, err := n.mr.Lpush(eventKey(1).Redis("rowtide"), "x"); err != nil {
				t.Fatal(err)
			}
			if err := n.mr.Set(eventKey(2).Redis("rowtide"), ""); err != nil {
				t.Fatal(err)
			}
			n.put(3, 90, "v")
			got, err := m.GetMany(t.Context(), []int64{1, 2, 3, 4})
			var partial *localsync.PartialError[int64]
			if !errors.As(err, &partial) || len(partial.Failed) != 2 || len(got) != 1 || got[3] != "v" {
				t.Fatalf("%v, %v; want event 3, nothing of event 4, and errors for 1 and 2", got, err)
			}
			for _, id := range []int64{1, 2} {
				if err := partial.Failed[id]; !errors.Is(err, localsync.ErrLoad) || !strings.Contains(err.Error(), "damaged, foreign") {
					t.Fatalf("event %d: %v, want ErrLoad that says why", id, err)
				}
			}
			if s := n.module("event"); s.Corrupt != 2 {
				t.Fatalf("%+v, want two counted", s)
			}
			n.mr.Del(eventKey(1).Redis("rowtide"))
			want(t, m, 1, "")
		})
	}
}

// A module with a loader asks it, whatever the key is, and pays no second look.
func TestBadInput_MissIsLookedAtTwiceOnlyWithoutALoader(t *testing.T) {
	n, o := newNode(t), newOrigin()
	m := n.events(o)
	n.settle(100)
	want(t, m, 1, "")
	if got := n.commands("GET"); got != 0 {
		t.Fatalf("%d GETs with a loader, want none", got)
	}
	bare, err := localsync.NewModule[int64, string](n.cache, localsync.ModuleConfig[int64]{Name: "bare"}, text{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	k := rowtide.Key{Module: "bare", Version: 1, ID: "1"}
	e := rowtide.Entry{Key: k, Version: 90, BuiltAt: n.clock.Now(), Payload: []byte("v")}
	if err := n.mr.Set(k.Redis("rowtide"), string(e.AppendEnvelope(nil))); err != nil {
		t.Fatal(err)
	}
	want(t, bare, 1, "v")
	if got := n.commands("GET"); got != 0 {
		t.Fatalf("%d GETs for a hit, want none", got)
	}
	want(t, bare, 2, "")
	if got := n.commands("GET"); got != 1 {
		t.Fatalf("%d GETs for a miss, want one", got)
	}
}
