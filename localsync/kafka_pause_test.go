package localsync_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/localsync"
)

// However many broadcasts come, a node asks a broker at most once in 3 ms.
func TestKafka_FetchesAreApart(t *testing.T) {
	const partitions, records = 3, 300
	k, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	var fetches atomic.Int64
	k.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		fetches.Add(1)
		return nil, nil, false
	})
	b := newBroker(t, k.ListenAddrs(), topic)
	b.create(partitions)
	h := newHeard()
	openKafka(t, localsync.Options{Redis: smallRedis(t), Brokers: k.ListenAddrs(), Observer: h, ReportEvery: -1})
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	began, before := time.Now(), fetches.Load()
	for i := range records {
		<-tick.C
		b.invalidate(int32(i%partitions), rowtide.Version(i+1))
	}
	for i := range records {
		select {
		case <-h.applied:
		case <-time.After(patience):
			t.Fatalf("heard %d of %d", i, records)
		}
	}
	took, n := time.Since(began), fetches.Load()-before
	t.Logf("%d records in %s, %d fetches", records, took, n)
	if most := int64(took/(3*time.Millisecond)) + 2; n > most {
		t.Errorf("%d fetches in %s, want at most %d", n, took, most)
	}
}
