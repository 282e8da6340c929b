package binlog_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/binlog"
)

func someCheckpoint(pos uint64) *binlog.Checkpoint {
	return &binlog.Checkpoint{
		Source: "mariadb:1@host:3306", Epoch: 3, File: "binlog.000004", Pos: pos, GTIDSet: "0-1-7",
		SavedAt: time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC),
	}
}

// checkStore is what every store must do.
func checkStore(t *testing.T, open func() binlog.Store) {
	t.Helper()
	ctx := t.Context()
	if c, err := open().Load(ctx); c != nil || err != nil {
		t.Fatalf("load of nothing: %+v, %v; want nil, nil", c, err)
	}
	for _, pos := range []uint64{157, 1 << 60} {
		if err := open().Save(ctx, someCheckpoint(pos)); err != nil {
			t.Fatal(err)
		}
		got, err := open().Load(ctx)
		if err != nil || !reflect.DeepEqual(got, someCheckpoint(pos)) {
			t.Fatalf("load: %+v, %v; want %+v", got, err, someCheckpoint(pos))
		}
	}
}

func TestFileStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint.json")
	checkStore(t, func() binlog.Store { return binlog.NewFileStore(path) })
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("folder holds %v, %v; want the checkpoint alone", entries, err)
	}
}

func TestFileStore_Corrupt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint.json")
	for _, in := range []string{"", `{"source":"x","po`, `[]`, "\x00\x00"} {
		if err := os.WriteFile(path, []byte(in), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := binlog.NewFileStore(path).Load(t.Context())
		if err == nil || !strings.Contains(err.Error(), "decode checkpoint "+path) || !strings.Contains(err.Error(), "remove it to start anew") {
			t.Errorf("%q: err=%v, want it to name the file and the remedy", in, err)
		}
	}
}

// A save that cannot be finished must leave the old checkpoint whole, and no
// litter.
func TestFileStore_FailedSaveKeepsTheOldOne(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "checkpoint.json")
	if err := os.Mkdir(path, 0o700); err != nil { // a rename over a folder fails, for root too
		t.Fatal(err)
	}
	if err := binlog.NewFileStore(path).Save(t.Context(), someCheckpoint(1)); err == nil || !strings.Contains(err.Error(), "save checkpoint") {
		t.Errorf("err=%v, want the rename's", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("folder holds %v, %v; want no temporary file", entries, err)
	}
	if err := binlog.NewFileStore(filepath.Join(dir, "no", "such")).Save(t.Context(), someCheckpoint(1)); err == nil {
		t.Error("save into a folder that does not exist: no error")
	}
}

// The file is replaced, never written into: whoever has the old one open still
// reads the whole old checkpoint.
func TestFileStore_SaveReplacesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "checkpoint.json")
	s := binlog.NewFileStore(path)
	if err := s.Save(t.Context(), someCheckpoint(1)); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Save(t.Context(), someCheckpoint(2)); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(path)
	if err != nil || os.SameFile(before, after) {
		t.Errorf("the file was written into (%v)", err)
	}
}

func TestRedisStore(t *testing.T) {
	mini := miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: mini.Addr()})
	defer rdb.Close()
	checkStore(t, func() binlog.Store { return binlog.NewRedisStore(rdb, "shop", "main") })
	if keys := mini.Keys(); len(keys) != 1 || keys[0] != "shop:checkpoint:main" || mini.TTL(keys[0]) != 0 {
		t.Errorf("keys %v, want shop:checkpoint:main without an end", keys)
	}
	if c, err := binlog.NewRedisStore(rdb, "shop", "other").Load(t.Context()); c != nil || err != nil {
		t.Errorf("another daemon's checkpoint: %+v, %v", c, err)
	}
	if err := mini.Set("shop:checkpoint:main", "{"); err != nil {
		t.Fatal(err)
	}
	if _, err := binlog.NewRedisStore(rdb, "shop", "main").Load(t.Context()); err == nil || !strings.Contains(err.Error(), "decode checkpoint shop:checkpoint:main") {
		t.Errorf("corrupt: err=%v", err)
	}
	mini.SetError("LOADING wait")
	s := binlog.NewRedisStore(rdb, "shop", "main")
	if _, err := s.Load(t.Context()); err == nil || !strings.Contains(err.Error(), "load checkpoint shop:checkpoint:main: LOADING") {
		t.Errorf("load: err=%v", err)
	}
	if err := s.Save(t.Context(), someCheckpoint(1)); err == nil || !strings.Contains(err.Error(), "save checkpoint shop:checkpoint:main: LOADING") {
		t.Errorf("save: err=%v", err)
	}
}

// memory is a store that keeps every save and can fail.
type memory struct {
	saved []binlog.Checkpoint
	err   error
}

func (m *memory) Load(context.Context) (*binlog.Checkpoint, error) {
	if len(m.saved) == 0 {
		return nil, m.err
	}
	c := m.saved[len(m.saved)-1]
	return &c, m.err
}

func (m *memory) Save(_ context.Context, c *binlog.Checkpoint) error {
	if m.err != nil {
		return m.err
	}
	m.saved = append(m.saved, *c)
	return nil
}

func TestProgress_FoldsGTIDsIntoTheCheckpoint(t *testing.T) {
	for _, tt := range []struct {
		flavor, start string
		saves         [][]string
		want          []string
	}{
		{"mariadb", "0-1-5", [][]string{{"0-1-6", "0-1-7"}, nil, {"1-2-1"}}, []string{"0-1-7", "0-1-7", "0-1-7,1-2-1"}},
		{
			"mysql", "1c133a9b-e5e2-11f1-9e5c-02fc00000001:1-5",
			[][]string{{"1c133a9b-e5e2-11f1-9e5c-02fc00000001:6,1c133a9b-e5e2-11f1-9e5c-02fc00000001:7"}, {"1c133a9b-e5e2-11f1-9e5c-02fc00000001:9"}},
			[]string{"1c133a9b-e5e2-11f1-9e5c-02fc00000001:1-7", "1c133a9b-e5e2-11f1-9e5c-02fc00000001:1-7:9"},
		},
		{"mysql", "", [][]string{nil}, []string{""}},
	} {
		t.Run(tt.flavor+" "+tt.start, func(t *testing.T) {
			store := &memory{}
			c := *someCheckpoint(100)
			c.GTIDSet = tt.start
			p, err := binlog.NewProgress(store, tt.flavor, c)
			if err != nil {
				t.Fatal(err)
			}
			for i, gtids := range tt.saves {
				pos := uint64(200 + i)
				if err := p.Save(t.Context(), rowtide.Position{File: "binlog.000005", Pos: pos}, gtids); err != nil {
					t.Fatal(err)
				}
				got := p.Current()
				if got.GTIDSet != tt.want[i] && got.GTIDSet != reversed(tt.want[i]) || got.Pos != pos || got.File != "binlog.000005" || got.Epoch != 3 || got.Source != c.Source {
					t.Errorf("save %d: %+v, want set %q at %d", i, got, tt.want[i], pos)
				}
				if store.saved[i] != got {
					t.Errorf("stored %+v, current %+v", store.saved[i], got)
				}
			}
		})
	}
}

// reversed is the other order in which a set of two domains may be printed.
func reversed(s string) string {
	a, b, _ := strings.Cut(s, ",")
	return b + "," + a
}

func TestProgress_Errors(t *testing.T) {
	down := errors.New("store is down")
	p, err := binlog.NewProgress(&memory{err: down}, "mariadb", *someCheckpoint(1))
	if err != nil {
		t.Fatal(err)
	}
	// A store that is down is waited for until the context ends.
	ended, end := context.WithCancel(t.Context())
	end()
	if err := p.Save(ended, rowtide.Position{}, nil); !errors.Is(err, down) {
		t.Errorf("err=%v, want the store's", err)
	}
	if err := p.Save(t.Context(), rowtide.Position{}, []string{"rubbish"}); err == nil || !strings.Contains(err.Error(), `add GTID "rubbish"`) {
		t.Errorf("err=%v, want it to name the id", err)
	}
	c := *someCheckpoint(1)
	c.GTIDSet = "rubbish"
	if _, err := binlog.NewProgress(&memory{}, "mysql", c); err == nil {
		t.Error("a checkpoint with a broken set was taken")
	}
}

// Of two daemons that believe to be elected, the one of the earlier term cannot
// move the checkpoint of the other.
func TestRedisStore_EarlierTermCannotSave(t *testing.T) {
	mini := miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: mini.Addr()})
	defer rdb.Close()
	of := func(term uint64) *binlog.RedisStore {
		s := binlog.NewRedisStore(rdb, "shop", "main")
		s.SetFence(term)
		return s
	}
	first, second := of(1), of(2)
	for i, step := range []struct {
		store *binlog.RedisStore
		pos   uint64
		want  error
	}{
		{first, 10, nil},
		{second, 30, nil},
		{first, 20, binlog.ErrFenced},
		{first, 40, binlog.ErrFenced}, // newer, but not its own to say
		{second, 25, nil},             // back, as after a Redis that lost writes
	} {
		if err := step.store.Save(t.Context(), someCheckpoint(step.pos)); !errors.Is(err, step.want) || (err == nil) != (step.want == nil) {
			t.Errorf("step %d: %v, want %v", i, err, step.want)
		}
	}
	if c, err := first.Load(t.Context()); err != nil || c.Pos != someCheckpoint(25).Pos || c.Fence != 2 {
		t.Errorf("checkpoint %+v, %v", c, err)
	}
	p, err := binlog.NewProgress(first, "", *someCheckpoint(10))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Save(t.Context(), rowtide.Position{File: "binlog.000001", Pos: 50}, nil); !errors.Is(err, binlog.ErrFenced) {
		t.Errorf("%v, want ErrFenced at once instead of another attempt", err)
	}
	// Without election the last one to save wins, as it ever did.
	if err := binlog.NewRedisStore(rdb, "shop", "main").Save(t.Context(), someCheckpoint(5)); err != nil {
		t.Error(err)
	}
}
