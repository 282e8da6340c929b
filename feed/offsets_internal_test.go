package feed

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"github.com/rowtide/rowtide"
)

// memory is a store that fails as often as it is told to.
type memory struct {
	doc   []byte
	fails int
}

func (m *memory) Load(context.Context) ([]byte, error) { return m.doc, nil }

func (m *memory) Save(_ context.Context, doc []byte) error {
	if m.fails > 0 {
		m.fails--
		return errors.New("away")
	}
	m.doc = doc
	return nil
}

func newProgress(s Store) *Progress {
	return &Progress{
		store: s, log: slog.New(slog.DiscardHandler), obs: NopObserver{},
		o: Offsets{Kind: offsetsKind, Epoch: 1, Partitions: map[string]Mark{"b:1": {Next: 5}}},
	}
}

// The last position tells of one partition only; the ids tell of all.
func TestProgress_KeepsEveryPartitionOfTheAcknowledged(t *testing.T) {
	m := &memory{fails: 1}
	p := newProgress(m)
	a, b := Mark{Next: 8, Newest: 1<<52 + 7, At: 100}, Mark{Next: 3}
	err := p.Save(t.Context(), rowtide.Position{File: "b:0", Pos: 3}, []string{
		Mark{Next: 7}.token("a.x:0"), b.token("b:0"), a.token("a.x:0"),
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeOffsets(m.doc)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]Mark{"a.x:0": a, "b:0": b, "b:1": {Next: 5}}
	if !reflect.DeepEqual(got.Partitions, want) || !reflect.DeepEqual(p.Current().Partitions, want) {
		t.Errorf("saved %v, current %v, want %v", got.Partitions, p.Current().Partitions, want)
	}
}

func TestProgress_GivesUpOnlyWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := newProgress(&memory{fails: 1 << 30}).Save(ctx, rowtide.Position{}, nil); err == nil {
		t.Error("no error although nothing was saved")
	}
}

func TestDecodeOffsets_RefusesABinlogsCheckpoint(t *testing.T) {
	_, err := decodeOffsets([]byte(`{"source":"uuid","epoch":1,"file":"binlog.000001","pos":4}`))
	if err == nil || !strings.Contains(err.Error(), "another name") {
		t.Errorf("error %v, want one with the remedy", err)
	}
}

func TestParseToken_RefusesWhatIsNone(t *testing.T) {
	for _, s := range []string{"", "uuid:7", "t:0:x:0:0", "t:0:1:-1:0"} {
		if _, _, err := parseToken(s); err == nil {
			t.Errorf("%q is taken for a token", s)
		}
	}
}
