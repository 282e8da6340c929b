//go:build integration

package publisher_test

import (
	"context"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/testenv"
)

// Heartbeats go on failing while Kafka is away, and the library then refuses to try for
// ten seconds more. Nodes are to hear as soon as it is back.
func TestKafka_IsTalkedToAsSoonAsItIsBack(t *testing.T) {
	if testenv.Degraded("kafka") {
		t.Skip("Apache Kafka could not be installed on this machine")
	}
	server, err := testenv.StartKafka(testContext(t), testenv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	stopAtEnd(t, server.Stop)
	p := openTopic(t, server.Brokers(), 3)
	ctx, stop := context.WithCancel(t.Context())
	beating := make(chan error, 1)
	go func() { beating <- p.bus.Run(ctx) }()
	all := []rowtide.Entry{entry(1, 1), entry(2, 1), entry(3, 1)}
	p.broadcast(testContext(t), all, 1)
	for round := range 2 {
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		more := []rowtide.Entry{entry(10+round, 2), entry(20+round, 2), entry(30+round, 2)}
		all = append(all, more...)
		sent := make(chan error, 1)
		go func() { sent <- p.bus.Broadcast(testContext(t), more, 2, time.Now()) }()
		<-time.After(3 * time.Second) // of failures
		if err := server.Restart(testContext(t)); err != nil {
			t.Fatal(err)
		}
		back := time.Now()
		if err := signal(t, "the acknowledgement", sent); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(back); took > 4*time.Second {
			t.Errorf("round %d: %s after the return, want no more than a pause between two attempts", round, took)
		}
	}
	stop()
	if err := signal(t, "the end of the heartbeats", beating); err != nil {
		t.Fatal(err)
	}
	p.checkBus(all)
}
