//go:build integration

package publisher_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/hints"
	"github.com/rowtide/rowtide/internal/testenv"
	"github.com/rowtide/rowtide/publisher"
)

// withHints is a store that tells hints until the test's end.
func withHints(t *testing.T, rdb redis.UniversalClient, prefix string, log *slog.Logger) *publisher.Redis {
	t.Helper()
	h := publisher.NewHints(rdb, prefix, log)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return publisher.NewRedis(rdb, prefix, log, publisher.NopObserver{}, publisher.WithHints(h))
}

// What a hint tells is in Redis already. A value that is pushed has none, and neither
// has a bulk write.
func TestHints_TellOfSmallFlushesOnceTheyAreInRedis(t *testing.T) {
	rdb, prefix, ctx := dial(t, &redis.Options{Addr: testenv.Redis(t)}), testenv.UniqueName(t, "hints"), testContext(t)
	sub := rdb.Subscribe(ctx, hints.Channel(rdb, prefix))
	defer sub.Close()
	if _, err := sub.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	r := withHints(t, rdb, prefix, quiet())
	gone, pushed := entry(2, 21), entry(3, 22)
	gone.Flags, gone.Payload = rowtide.FlagEmpty|rowtide.FlagDeleted, nil
	pushed.Push = true
	bulk := make([]rowtide.Entry, 101)
	for i := range bulk {
		bulk[i] = entry(100+i, 30)
	}
	for _, flush := range [][]rowtide.Entry{{entry(1, 20), gone, pushed}, {pushed}, bulk, {entry(4, 40)}} {
		if err := r.Overwrite(ctx, flush); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"event/1/1 20 false, event/1/2 21 true", "event/1/4 40 false"} {
		msg, err := sub.ReceiveMessage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		b, err := rowtide.DecodeBatch([]byte(msg.Payload))
		if err != nil || b.Sequence != 0 || b.Watermark != 0 || b.Producer != 0 {
			t.Fatalf("%+v, %v", b, err)
		}
		var got []string
		for _, inv := range b.Items {
			got = append(got, fmt.Sprint(inv.Key, " ", uint64(inv.Version), " ", inv.Empty))
			if inv.Value != nil {
				t.Errorf("%s has a value", inv.Key)
			}
			holds(t, rdb, prefix, inv.Key, inv.Version)
		}
		if s := strings.Join(got, ", "); s != want {
			t.Errorf("%s, want %s", s, want)
		}
	}
}

// Without the right to publish everything else goes on, and the log says so once.
func TestHints_WithoutTheRightAreLeftOut(t *testing.T) {
	o := testenv.Options{ACL: []string{"daemon on >password ~* +ping +client|setname +evalsha +script|load +get +getrange +set"}}
	rdb := universal(t, &redis.UniversalOptions{Addrs: []string{privateRedis(t, o).Addr}, Username: "daemon", Password: "password"})
	said := make(chan string, 100)
	r := withHints(t, rdb, "rowtide", slog.New(slog.NewTextHandler(lines(said), nil)))
	write := func(v rowtide.Version) {
		t.Helper()
		if err := r.Overwrite(testContext(t), []rowtide.Entry{entry(1, v)}); err != nil {
			t.Fatal(err)
		}
	}
	write(1)
	select {
	case line := <-said:
		if !strings.Contains(line, "does not let this user publish") || !strings.Contains(line, "rowtide:~hints") {
			t.Errorf("%s", line)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nothing is said")
	}
	for v := range rowtide.Version(200) { // more than may wait
		write(v + 2)
	}
	<-time.After(1500 * time.Millisecond) // it is tried again
	write(300)
	<-time.After(100 * time.Millisecond)
	if len(said) > 0 {
		t.Errorf("said again: %s", <-said)
	}
}

type lines chan<- string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}
