package feed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/backoff"
)

// Store keeps one small document.
type Store interface {
	// Load returns the document, or nil and no error when there is none.
	Load(ctx context.Context) ([]byte, error)
	// Save replaces the document. After it returns nil, a crash of this process
	// cannot lose it.
	Save(ctx context.Context, doc []byte) error
}

// offsetsKind tells the document from the checkpoint of a binary log.
const offsetsKind = "kafka"

// Offsets is the checkpoint of a feed: every record before them is in Redis and
// on Kafka, acknowledged.
type Offsets struct {
	Kind  string `json:"kind"`
	Epoch uint32 `json:"epoch"`
	// Partitions by "topic:partition".
	Partitions map[string]Mark `json:"partitions"`
	SavedAt    time.Time       `json:"saved_at"`
}

// Mark is a place in a partition.
type Mark struct {
	// Next is the offset of the first record that has not been taken care of.
	Next int64 `json:"next"`
	// Newest is the highest version so far, and At its commit in Unix seconds: by
	// them it shows when the positions of the source start anew.
	Newest rowtide.Version `json:"newest"`
	At     int64           `json:"at"`
}

// token puts the mark into a transaction's id, so that the ids of acknowledged
// transactions tell the place in every partition.
func (m Mark) token(partition string) string {
	return fmt.Sprintf("%s:%d:%d:%d", partition, m.Next, uint64(m.Newest), m.At)
}

func parseToken(s string) (partition string, m Mark, err error) {
	parts := strings.Split(s, ":")
	if len(parts) != 5 {
		return "", m, fmt.Errorf("offset token %q: want topic:partition:next:newest:at", s)
	}
	next, err1 := strconv.ParseInt(parts[2], 10, 64)
	newest, err2 := strconv.ParseUint(parts[3], 10, 64)
	at, err3 := strconv.ParseInt(parts[4], 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return "", m, fmt.Errorf("offset token %q: %w", s, err)
	}
	return parts[0] + ":" + parts[1], Mark{Next: next, Newest: rowtide.Version(newest), At: at}, nil
}

func partitionName(topic string, partition int32) string {
	return topic + ":" + strconv.Itoa(int(partition))
}

func decodeOffsets(doc []byte) (Offsets, error) {
	var o Offsets
	err := json.Unmarshal(doc, &o)
	if err != nil || o.Kind != offsetsKind {
		return o, errors.Join(errors.New("the checkpoint is not that of a kafka source; give this daemon another name or checkpoint.path"), err)
	}
	return o, nil
}

// Progress folds acknowledged transactions into the offsets. It is safe for one
// writer and any number of readers of Current.
type Progress struct {
	store Store
	log   *slog.Logger
	obs   Observer
	mu    sync.Mutex
	o     Offsets
}

// Save records that the transactions with these ids, in order, are acknowledged
// everywhere. It blocks until the store has it; a store that is away is waited
// for.
func (p *Progress) Save(ctx context.Context, _ rowtide.Position, ids []string) error {
	doc, err := p.fold(ids)
	if err != nil {
		return err
	}
	wait := backoff.New(50*time.Millisecond, 2*time.Second)
	for failing := false; ; failing = true {
		err := p.store.Save(ctx, doc)
		if err == nil {
			if failing {
				p.log.Info("checkpoint is saved again")
				p.obs.CheckpointAway(nil)
			}
			return nil
		}
		if !failing {
			p.log.Warn("checkpoint cannot be saved, holding the source back until it can", "err", err)
			p.obs.CheckpointAway(err)
		}
		if wait.Wait(ctx) != nil {
			return err
		}
	}
}

func (p *Progress) fold(ids []string) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range ids {
		name, m, err := parseToken(id)
		if err != nil {
			return nil, err
		}
		p.o.Partitions[name] = m
	}
	p.o.SavedAt = time.Now().UTC()
	return json.Marshal(p.o)
}

// Current is the newest checkpoint, saved or about to be.
func (p *Progress) Current() Offsets {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.o
	o.Partitions = maps.Clone(p.o.Partitions)
	return o
}
