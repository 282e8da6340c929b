package publisher

import (
	"errors"
	"fmt"
	"sync"

	"github.com/IBM/sarama"
	"github.com/eapache/go-resiliency/breaker"
)

// producer is sarama's, made anew when Kafka comes back from an outage. Each partition of
// one counts its failures; after three it refuses to try for ten seconds, during which
// nodes would hear nothing although the broker is there again.
type producer struct {
	topic  string
	client sarama.Client // nil: the producer stays what it is

	asking sync.Mutex // held by who asks for the broker; the others wait for the answer

	mu      sync.Mutex
	cur     sarama.SyncProducer
	refuses bool

	ending sync.WaitGroup // producers of before
}

// use is the producer to send with, or why there is none. Once the present one refuses,
// it asks whether Kafka is back, which may take as long as the client's timeouts allow.
func (p *producer) use() (sarama.SyncProducer, error) {
	if cur, refuses := p.state(); !refuses {
		return cur, nil
	}
	p.asking.Lock()
	defer p.asking.Unlock()
	cur, refuses := p.state()
	if !refuses {
		return cur, nil
	}
	if err := p.client.RefreshMetadata(p.topic); err != nil {
		return nil, fmt.Errorf("ask for topic %s: %w", p.topic, err)
	}
	next, err := sarama.NewSyncProducerFromClient(p.client)
	if err != nil {
		return nil, fmt.Errorf("make producer: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cur, p.refuses = next, false
	p.ending.Go(func() { _ = cur.Close() }) // what it still has was told as failed, and is repeated
	return next, nil
}

func (p *producer) state() (cur sarama.SyncProducer, refuses bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cur, p.refuses
}

// failed takes note of why from could not send.
func (p *producer) failed(from sarama.SyncProducer, err error) {
	open := errors.Is(err, breaker.ErrBreakerOpen)
	if all, ok := errors.AsType[sarama.ProducerErrors](err); ok {
		for _, one := range all {
			open = open || errors.Is(one.Err, breaker.ErrBreakerOpen)
		}
	}
	if !open || p.client == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuses = p.refuses || p.cur == from
}

func (p *producer) close() error {
	cur, _ := p.state()
	err := cur.Close()
	p.ending.Wait()
	if err != nil && !errors.Is(err, sarama.ErrClosedClient) {
		return fmt.Errorf("close producer: %w", err)
	}
	return nil
}
