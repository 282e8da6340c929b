//go:build integration

package localsync_test

import (
	"context"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide/internal/testenv"
)

// redisForms runs a test on every Redis there is: each program alone, watched by
// Sentinels and as a cluster, as the given user.
func redisForms(t *testing.T, rights string, test func(*testing.T, redis.UniversalClient)) {
	for _, p := range testenv.RedisPrograms(t) {
		for _, form := range []string{"alone", "sentinel", "cluster"} {
			t.Run(p.Name+"/"+form, func(t *testing.T) {
				o := testenv.Options{Bin: p.Bin}
				opts := &redis.UniversalOptions{}
				if rights != "" {
					o.ACL = []string{"node " + rights}
					if form == "cluster" {
						o.ACL[0] += " +cluster|slots +command"
					}
					opts.Username, opts.Password = "node", "password"
				}
				opts.Addrs, opts.MasterName, opts.IsClusterMode = startForm(t, form, o)
				rdb := redis.NewUniversalClient(opts)
				t.Cleanup(func() { _ = rdb.Close() })
				test(t, rdb)
			})
		}
	}
}

func startForm(t *testing.T, form string, o testenv.Options) (addrs []string, master string, cluster bool) {
	t.Helper()
	stopped := func(stop func(context.Context) error, err error) {
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = stop(context.Background()) })
	}
	switch form {
	case "sentinel":
		s, err := testenv.StartRedisSentinel(t.Context(), o)
		stopped(s.Stop, err)
		return s.Addrs(), testenv.SentinelMaster, false
	case "cluster":
		c, err := testenv.StartRedisCluster(t.Context(), 3, false, o)
		stopped(c.Stop, err)
		return c.Addrs(), "", true
	}
	s, err := testenv.StartRedis(t.Context(), o)
	stopped(s.Stop, err)
	return []string{s.Addr}, "", false
}

// 200 caches of one process, as they come, with nothing to hold them back.
func TestIntegration_LeaseTwoHundredNodesMissOneKeyAtMostTwoLoad(t *testing.T) {
	redisForms(t, "", func(t *testing.T, rdb redis.UniversalClient) {
		o := newOrigin()
		f := newFleet(t, 200, rdb, &clock{}, "rowtide", o)
		for id := range int64(10) {
			o.set(id, "v")
			before, start := o.loads(), time.Now()
			var asked []<-chan answer
			for _, m := range f {
				asked = append(asked, ask(t.Context(), m.shows, id))
			}
			for _, ch := range asked {
				if a := reply(t, ch); a.err != nil || a.value != "v" || a.info.Stale || a.info.Version != 100 {
					t.Fatalf("got %+v, want v at 100", a)
				}
			}
			n := o.loads() - before
			t.Logf("key %d: %d loads, %v", id, n, time.Since(start))
			if n > 2 {
				t.Errorf("%d loads of one key, want at most 2", n)
			}
		}
		if got := f.sum(timeouts); got != 0 {
			t.Errorf("%d waits timed out", got)
		}
	})
}

var nodeRights = regexp.MustCompile(`(?m)^on >password ~rowtide:\* &rowtide:.*$`)

// What docs/operations.md grants a web node is enough to lease, wait and be told.
func TestIntegration_LeaseWorksWithTheDocumentedRights(t *testing.T) {
	page, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	rights := nodeRights.FindString(string(page))
	if rights == "" || strings.Contains(rights, "+@") || strings.Contains(rights, "+del") {
		t.Fatalf("docs/operations.md gives a node %q", rights)
	}
	redisForms(t, rights, func(t *testing.T, rdb redis.UniversalClient) {
		o := newOrigin()
		o.set(1, "v")
		f := newFleet(t, 3, rdb, &clock{}, "rowtide", o)
		reached, release := pause(o)
		asked := []<-chan answer{ask(t.Context(), f[0].shows, 1)}
		await(t, "the load", reached)
		for _, m := range f[1:] {
			asked = append(asked, ask(t.Context(), m.shows, 1))
		}
		eventually(t, "the others wait", func() bool { return f.sum(waits) == 2 })
		close(release)
		for _, ch := range asked {
			if a := reply(t, ch); a.err != nil || a.value != "v" {
				t.Fatalf("got %+v, want v", a)
			}
		}
		if o.loads() != 1 || f.sum(timeouts) != 0 {
			t.Fatalf("%d loads, %d timeouts; want one load", o.loads(), f.sum(timeouts))
		}
		if err := rdb.Del(t.Context(), "rowtide:event:1:1").Err(); err == nil {
			t.Error("the node may delete")
		}
	})
}

// Subscriptions that are cut are opened again, and what was said meanwhile is made
// up for by a look.
func TestIntegration_LeaseSubscriptionThatIsCutIsOpenedAgain(t *testing.T) {
	s, err := testenv.StartRedis(t.Context(), testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Stop(context.Background()) })
	rdb := redis.NewClient(&redis.Options{Addr: s.Addr})
	t.Cleanup(func() { _ = rdb.Close() })
	o := newOrigin()
	f := newFleet(t, 2, rdb, &clock{}, "rowtide", o)
	for id := range int64(3) {
		o.set(id, "v")
		reached, release := pause(o)
		first := ask(t.Context(), f[0].shows, id)
		await(t, "the load", reached)
		second := ask(t.Context(), f[1].shows, id)
		eventually(t, "the second waits", func() bool { return f.sum(waits) == uint64(id)+1 })
		killed, err := s.Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub")
		if err != nil {
			t.Fatal(err)
		}
		if id > 0 && killed != "1" {
			t.Errorf("%s subscriptions were cut, want the one of the second node", killed)
		}
		close(release)
		for _, ch := range []<-chan answer{first, second} {
			if a := reply(t, ch); a.err != nil || a.value != "v" {
				t.Fatalf("got %+v, want v", a)
			}
		}
		if o.loads() != int(id)+1 || f.sum(timeouts) != 0 {
			t.Fatalf("%d loads, %d timeouts", o.loads(), f.sum(timeouts))
		}
		if id > 0 {
			eventually(t, "the subscription is there again", func() bool {
				n, err := rdb.PubSubNumPat(t.Context()).Result()
				channels, err2 := rdb.PubSubChannels(t.Context(), "rowtide:~node:*").Result()
				return err == nil && err2 == nil && n == 0 && len(channels) == 1
			})
		}
	}
}

// The lease of a node that died ends by itself: one load by who inherits it.
func TestIntegration_LeaseOfADeadNodeEnds(t *testing.T) {
	rdb := redis.NewClient(&redis.Options{Addr: testenv.Redis(t)})
	t.Cleanup(func() { _ = rdb.Close() })
	prefix := testenv.UniqueName(t, "lease")
	o := newOrigin()
	o.set(1, "v")
	f := newFleet(t, 50, rdb, &clock{}, prefix, o, leaseWait(4*time.Second))
	key := prefix + ":~lease:{" + eventKey(1).Redis(prefix) + "}"
	if err := rdb.Set(t.Context(), key, strings.Repeat("x", 32), time.Second).Err(); err != nil {
		t.Fatal(err)
	}
	var asked []<-chan answer
	for _, m := range f {
		asked = append(asked, ask(t.Context(), m.shows, 1))
	}
	for _, ch := range asked {
		if a := reply(t, ch); a.err != nil || a.value != "v" {
			t.Fatalf("got %+v, want v", a)
		}
	}
	if o.loads() > 2 || f.sum(timeouts) != 0 {
		t.Fatalf("%d loads, %d timeouts; want at most 2 loads", o.loads(), f.sum(timeouts))
	}
	if ttl := rdb.PTTL(t.Context(), key).Val(); ttl > time.Second {
		t.Fatalf("the lease lasts another %v", ttl)
	}
}
