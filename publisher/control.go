package publisher

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/IBM/sarama"

	"github.com/rowtide/rowtide"
)

// Control tells nodes the settings of modules, over a compacted topic with one
// record per module. It is safe for use by many goroutines.
type Control struct {
	keyed
	client sarama.Client

	mu    sync.Mutex
	next  int64             // offset up to which the topic is known
	known map[string][]byte // newest record, by module
}

// NewControl makes sure that the topic is there and reads it, for up to 10 s. The
// client is made with [Config.Client].
func NewControl(cfg Config, client sarama.Client, log *slog.Logger) (*Control, error) {
	w, err := newKeyed(cfg, client, cfg.ControlTopic, log)
	if err != nil {
		return nil, err
	}
	c := &Control{keyed: w, client: client, known: map[string][]byte{}}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := c.catchUp(ctx); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return c, nil
}

// catchUp reads what was written since, also by another daemon.
func (c *Control) catchUp(ctx context.Context) error {
	end, err := readTo(ctx, c.client, c.topic, 0, c.next, func(m *sarama.ConsumerMessage) error {
		if m.Value == nil {
			delete(c.known, string(m.Key))
		} else {
			c.known[string(m.Key)] = m.Value
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.next = end
	return nil
}

// State is the newest that this Control has read or written of each module, by
// name: at the start, where the generations go on from.
func (c *Control) State() []rowtide.ModuleControl {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []rowtide.ModuleControl
	for _, b := range c.known {
		if m, err := rowtide.DecodeControl(b); err == nil {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b rowtide.ModuleControl) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Put makes the topic say this of these modules: it reads what is new there and
// writes those that differ. A generation below the topic's is raised to it. When
// it returns nil, all in-sync replicas have the records; it waits for a broker
// that is away until ctx ends. Other modules' records stay: they may be another
// daemon's.
func (c *Control) Put(ctx context.Context, modules []rowtide.ModuleControl) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.catchUp(ctx); err != nil {
		return err
	}
	for _, m := range modules {
		have := c.known[m.Name]
		known, err := rowtide.DecodeControl(have)
		if errors.Is(err, rowtide.ErrNewerFormat) {
			return fmt.Errorf("topic %s, module %s: %w: upgrade this daemon", c.topic, m.Name, err)
		}
		if known.Generation > m.Generation {
			m.Generation, m.Since = known.Generation, known.Since
		}
		record := m.AppendControl(nil)
		if bytes.Equal(record, have) {
			continue
		}
		if err := c.put(ctx, m.Name, record); err != nil {
			return err
		}
		c.known[m.Name] = record
	}
	return nil
}
