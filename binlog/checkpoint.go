package binlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/backoff"
)

// Checkpoint says how far a source has been taken care of: every transaction up
// to it is in Redis and on Kafka, acknowledged.
type Checkpoint struct {
	// Source is the server's identity, so that another server at the same address
	// is noticed.
	Source string `json:"source"`
	// Epoch is the lineage's number; the high bits of every Version.
	Epoch uint32 `json:"epoch"`
	// File and Pos are where the last transaction ended.
	File string `json:"file"`
	Pos  uint64 `json:"pos"`
	// GTIDSet holds every transaction taken care of; empty without GTIDs.
	GTIDSet string    `json:"gtid_set,omitempty"`
	SavedAt time.Time `json:"saved_at"`
	// Fence is the term of the elected daemon that saved it; 0 without election.
	Fence uint64 `json:"fence,omitempty"`
}

// Position is the checkpoint's file and offset.
func (c Checkpoint) Position() rowtide.Position { return rowtide.Position{File: c.File, Pos: c.Pos} }

// version is the version of the transaction that ends at the checkpoint; 0 when
// it is at none.
func (c Checkpoint) version() rowtide.Version {
	file, err := rowtide.FileNumber(c.File)
	if err != nil {
		return 0
	}
	v, err := rowtide.NewVersion(c.Epoch, file, c.Pos)
	if err != nil {
		return 0
	}
	return v
}

// Store keeps one checkpoint.
type Store interface {
	// Load returns the checkpoint, or nil and no error when there is none.
	Load(ctx context.Context) (*Checkpoint, error)
	// Save replaces the checkpoint. After it returns nil, a crash of this process
	// cannot lose it.
	Save(ctx context.Context, c *Checkpoint) error
}

// RedisStore keeps the checkpoint beside the data it describes, so that a Redis
// that loses writes also loses the claim to have them.
type RedisStore struct {
	rdb   redis.UniversalClient
	key   string
	fence uint64
}

// ErrFenced means that another daemon was elected since, and has saved its own
// checkpoint. Stop: the work is in its hands.
var ErrFenced = errors.New("another daemon was elected and has gone on from here")

// fencedSave stores a checkpoint unless one of a later term is there. A holder may
// move its own back: it knows why.
const fencedSave = `
local old = redis.call('GET', KEYS[1])
if old then
  local ok, c = pcall(cjson.decode, old)
  if ok and type(c) == 'table' and (tonumber(c.fence) or 0) > tonumber(ARGV[2]) then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1])
return 1`

var fencedSaveScript = redis.NewScript(fencedSave)

// NewRedisStore keeps the checkpoint of the named daemon under prefix.
func NewRedisStore(rdb redis.UniversalClient, prefix, name string) *RedisStore {
	return &RedisStore{rdb: rdb, key: prefix + ":checkpoint:" + name}
}

// SetFence makes every Save fail with [ErrFenced] once a checkpoint of a later term
// is there. It must precede the first Save; without it every Save replaces.
func (s *RedisStore) SetFence(term uint64) { s.fence = term }

// Load implements Store.
func (s *RedisStore) Load(ctx context.Context) (*Checkpoint, error) {
	b, err := s.rdb.Get(ctx, s.key).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil //nolint:nilnil // no checkpoint yet, as the interface says
	}
	if err != nil {
		return nil, fmt.Errorf("load checkpoint %s: %w", s.key, err)
	}
	return decodeCheckpoint(s.key, b)
}

// Save implements Store.
func (s *RedisStore) Save(ctx context.Context, c *Checkpoint) error {
	fenced := *c
	fenced.Fence = s.fence
	b, err := json.Marshal(fenced)
	if err != nil {
		return fmt.Errorf("encode checkpoint: %w", err)
	}
	saved := true
	if s.fence == 0 {
		err = s.rdb.Set(ctx, s.key, b, 0).Err()
	} else {
		saved, err = s.saveFenced(ctx, b)
	}
	switch {
	case err != nil:
		return fmt.Errorf("save checkpoint %s: %w", s.key, err)
	case !saved:
		return fmt.Errorf("save checkpoint %s: %w", s.key, ErrFenced)
	}
	return nil
}

// saveFenced does without EVAL, for which the daemon's user has no right.
func (s *RedisStore) saveFenced(ctx context.Context, b []byte) (saved bool, err error) {
	n, err := fencedSaveScript.EvalSha(ctx, s.rdb, []string{s.key}, b, s.fence).Int()
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		if err = fencedSaveScript.Load(ctx, s.rdb).Err(); err == nil {
			n, err = fencedSaveScript.EvalSha(ctx, s.rdb, []string{s.key}, b, s.fence).Int()
		}
	}
	return n == 1, err
}

func decodeCheckpoint(where string, b []byte) (*Checkpoint, error) {
	var c Checkpoint
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, fmt.Errorf("decode checkpoint %s: %w; remove it to start anew", where, err)
	}
	return &c, nil
}

// FileStore keeps the checkpoint in a file.
type FileStore struct{ path string }

// NewFileStore keeps the checkpoint at path; its folder must exist.
func NewFileStore(path string) *FileStore { return &FileStore{path: path} }

// Load implements Store.
func (s *FileStore) Load(context.Context) (*Checkpoint, error) {
	b, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // no checkpoint yet, as the interface says
	}
	if err != nil {
		return nil, fmt.Errorf("load checkpoint: %w", err)
	}
	return decodeCheckpoint(s.path, b)
}

// Save implements Store: a temporary file is written, synced and renamed over
// the old one, and the folder is synced, so that a power cut leaves one of the
// two.
func (s *FileStore) Save(_ context.Context, c *Checkpoint) error {
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode checkpoint: %w", err)
	}
	dir := filepath.Dir(s.path)
	tmp, err := os.CreateTemp(dir, ".checkpoint-*")
	if err != nil {
		return fmt.Errorf("save checkpoint: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(b)
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("save checkpoint: %w", err)
	}
	if err := os.Rename(tmp.Name(), s.path); err != nil {
		return fmt.Errorf("save checkpoint: %w", err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync checkpoint folder: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// Progress folds applied transactions into the checkpoint. It is safe for one
// writer and any number of readers of Current.
type Progress struct {
	store Store
	log   *slog.Logger
	obs   Observer
	mu    sync.Mutex
	c     Checkpoint
	gtids *gtidSet // nil when the stream goes by file and position
	saved Checkpoint
	next  chan struct{} // closed at the next save
}

// NewProgress continues from c. With an empty flavor it goes by file and
// position: a set that lacks what came before c would be worse than none.
func NewProgress(store Store, flavor string, c Checkpoint) (*Progress, error) {
	p := &Progress{store: store, log: slog.New(slog.DiscardHandler), obs: NopObserver{}, c: c, next: make(chan struct{})}
	if flavor == "" {
		return p, nil
	}
	var err error
	p.gtids, err = parseGTIDSet(flavor, c.GTIDSet)
	return p, err
}

// Save records that every transaction up to last, whose ids are gtids in order,
// is acknowledged everywhere. It blocks until the store has it: a store that is
// away is waited for, like everything else on the way out.
func (p *Progress) Save(ctx context.Context, last rowtide.Position, gtids []string) error {
	c, err := p.fold(last, gtids)
	if err != nil {
		return err
	}
	wait := backoff.New(50*time.Millisecond, 2*time.Second)
	for failing := false; ; failing = true {
		err := p.store.Save(ctx, &c)
		if err == nil {
			p.noteSaved(c)
			if failing {
				p.log.Info("checkpoint is saved again")
				p.obs.CheckpointAway(nil)
			}
			return nil
		}
		if errors.Is(err, ErrFenced) {
			return err
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

func (p *Progress) fold(last rowtide.Position, gtids []string) (Checkpoint, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gtids != nil {
		for _, g := range gtids {
			if err := p.gtids.add(g); err != nil {
				return p.c, err
			}
		}
		p.c.GTIDSet = p.gtids.String()
	}
	p.c.File, p.c.Pos = last.File, last.Pos
	p.c.SavedAt = time.Now().UTC()
	return p.c, nil
}

// Current is the newest checkpoint, saved or about to be.
func (p *Progress) Current() Checkpoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.c
}

// Reached is the version of the newest transaction that Save was given.
func (p *Progress) Reached() rowtide.Version { return p.Current().version() }

func (p *Progress) noteSaved(c Checkpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.saved = c
	close(p.next)
	p.next = make(chan struct{})
}

// lastSaved is what this Progress saved last, as a version (0: nothing yet), and
// a channel that is closed when that changes.
func (p *Progress) lastSaved() (rowtide.Version, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.saved.version(), p.next
}

// adopt makes the checkpoint another server's, in a new epoch.
func (p *Progress) adopt(source string, epoch uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.c.Source, p.c.Epoch = source, epoch
}
