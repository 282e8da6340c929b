package rowtide_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
)

var update = flag.Bool("update", false, "write testdata/wire anew from the code")

// The published vectors: testdata/wire/README.md explains the fields to authors
// in other languages. A change of an existing vector is a change of the format.

type keyVector struct {
	Module  string `json:"module"`
	Version uint16 `json:"version"`
	ID      string `json:"id"`
}

type envelopeVector struct {
	Name       string    `json:"name"`
	Key        keyVector `json:"key"`
	Redis      string    `json:"redis_key"`
	KeyCheck   string    `json:"key_check"`
	Version    string    `json:"version"`
	Empty      bool      `json:"empty"`
	Deleted    bool      `json:"deleted"`
	Fill       bool      `json:"fill"`
	Generation uint32    `json:"generation"`
	BuiltAt    int64     `json:"built_at_ms"`
	TTL        int64     `json:"ttl_ms"`
	Payload    string    `json:"payload"`
	Hex        string    `json:"hex"`
}

type itemVector struct {
	Key     keyVector `json:"key"`
	Version string    `json:"version"`
	Empty   bool      `json:"empty"`
	Value   *string   `json:"value"`
}

type recordVector struct {
	Name        string       `json:"name"`
	Producer    string       `json:"producer"`
	Sequence    string       `json:"sequence"`
	Watermark   string       `json:"watermark"`
	SentAt      int64        `json:"sent_at_us"`
	CommittedAt int64        `json:"committed_at_us"`
	Behind      int64        `json:"behind_ms"`
	Heartbeat   bool         `json:"heartbeat"`
	Items       []itemVector `json:"items"`
	Hex         string       `json:"hex"`
}

type partitionVector struct {
	Key           keyVector        `json:"key"`
	Hash          string           `json:"hash"`
	PartitionOf12 int32            `json:"partition_of_12"`
	PartitionOf   map[string]int32 `json:"partition_of"`
}

var (
	goldenBuilt  = time.UnixMilli(1_763_712_000_123).UTC()
	goldenSent   = time.UnixMicro(1_763_712_000_123_456).UTC()
	goldenCommit = time.UnixMicro(1_763_712_000_120_001).UTC()
)

func version(t testing.TB, epoch, file uint32, pos uint64) rowtide.Version {
	t.Helper()
	v, err := rowtide.NewVersion(epoch, file, pos)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

type namedEntry struct {
	name string
	// ttl is what a reader sees when it is not what was written.
	ttl   time.Duration
	entry rowtide.Entry
}

func goldenEntries(t testing.TB) []namedEntry {
	key := rowtide.Key{Module: "event", Version: 1, ID: "42"}
	base := rowtide.Entry{Key: key, Version: version(t, 1, 4, 157), BuiltAt: goldenBuilt, TTL: 24 * time.Hour}
	with := func(name string, change func(*rowtide.Entry)) namedEntry {
		n := namedEntry{name: name, entry: base}
		change(&n.entry)
		n.ttl = n.entry.TTL
		return n
	}
	out := []namedEntry{
		with("value", func(e *rowtide.Entry) { e.Payload = []byte(`{"id":42,"title":"Été ☀"}`) }),
		with("empty payload", func(e *rowtide.Entry) { e.Payload = []byte{} }),
		with("deleted", func(e *rowtide.Entry) {
			e.Flags, e.TTL = rowtide.FlagEmpty|rowtide.FlagDeleted, 10*time.Minute
		}),
		with("empty fill", func(e *rowtide.Entry) {
			e.Flags, e.TTL = rowtide.FlagEmpty|rowtide.FlagFill, 30*time.Second
		}),
		with("fill", func(e *rowtide.Entry) {
			e.Flags, e.Payload, e.Generation = rowtide.FlagFill, []byte(`{"id":42}`), 7
		}),
		with("no ttl", func(e *rowtide.Entry) { e.TTL, e.Payload = 0, []byte(`1`) }),
		with("ttl saturates", func(e *rowtide.Entry) { e.TTL, e.Payload = 365*24*time.Hour, []byte(`1`) }),
		with("largest version", func(e *rowtide.Entry) {
			e.Version = version(t, rowtide.MaxEpoch, rowtide.MaxFileNumber, 1<<40)
			e.Key = rowtide.Key{Module: "film_stock", Version: 65535, ID: "7:é"}
			e.Generation, e.Payload = 1<<32-1, []byte{0, 0xff, 0xA7}
		}),
		with("version zero", func(e *rowtide.Entry) { e.Version, e.BuiltAt = 0, time.UnixMilli(0).UTC() }),
	}
	out[6].ttl = (1<<32 - 1) * time.Millisecond
	return out
}

func flagSet(e *rowtide.Entry, f rowtide.Flags) bool { return e.Flags&f != 0 }

func vectorKey(k rowtide.Key) keyVector { return keyVector(k) }

func hex64(n uint64) string {
	b := [8]byte{}
	for i := range b {
		b[i] = byte(n >> (56 - 8*i))
	}
	return hex.EncodeToString(b[:])
}

func envelopeVectors(t testing.TB) []envelopeVector {
	var out []envelopeVector
	for _, n := range goldenEntries(t) {
		e := n.entry
		payload := string(e.Payload)
		if n.name == "largest version" {
			payload = "hex:" + hex.EncodeToString(e.Payload)
		}
		out = append(out, envelopeVector{
			Name: n.name, Key: vectorKey(e.Key), Redis: e.Key.Redis("rowtide"), KeyCheck: hex64(e.Key.Hash()),
			Version: hex64(uint64(e.Version)), Empty: e.Empty(), Deleted: flagSet(&e, rowtide.FlagDeleted), Fill: flagSet(&e, rowtide.FlagFill),
			Generation: e.Generation, BuiltAt: e.BuiltAt.UnixMilli(), TTL: n.ttl.Milliseconds(), Payload: payload,
			Hex: hex.EncodeToString(e.AppendEnvelope(nil)),
		})
	}
	return out
}

type namedBatch struct {
	name  string
	batch rowtide.Batch
}

func goldenBatches(t testing.TB) []namedBatch {
	v := version(t, 1, 4, 157)
	item := rowtide.Invalidation{Key: rowtide.Key{Module: "event", Version: 1, ID: "42"}, Version: v}
	empty := rowtide.Invalidation{Key: rowtide.Key{Module: "event_page", Version: 3, ID: "7:é"}, Version: v, Empty: true}
	valued, bare := item, item
	valued.Value, bare.Value = []byte(`{"id":42}`), []byte{}
	long := item
	long.Key.ID = string(bytes.Repeat([]byte("x"), 200)) // a length of two bytes
	return []namedBatch{
		{"heartbeat before the first record", rowtide.Batch{Producer: 1, SentAt: goldenSent}},
		{"heartbeat", rowtide.Batch{Producer: 0x0123456789abcdef, Sequence: 9, Watermark: v, SentAt: goldenSent}},
		{"one item", rowtide.Batch{Producer: 0x0123456789abcdef, Sequence: 10, Watermark: v, SentAt: goldenSent, CommittedAt: goldenCommit, Items: []rowtide.Invalidation{item}}},
		{"empty, value, empty value, long id", rowtide.Batch{
			Producer: 1<<64 - 1, Sequence: 1<<64 - 1, Watermark: 1<<64 - 1, SentAt: goldenSent, CommittedAt: goldenCommit,
			Items: []rowtide.Invalidation{empty, valued, bare, long},
		}},
		{"behind", rowtide.Batch{Producer: 1, Sequence: 9, Watermark: v, SentAt: goldenSent, Behind: 65*time.Second + 300*time.Millisecond}},
		{"behind for very long", rowtide.Batch{Producer: 1, Sequence: 9, Watermark: v, SentAt: goldenSent, Behind: rowtide.MaxBehind}},
	}
}

func recordVectors(t testing.TB) []recordVector {
	var out []recordVector
	for _, n := range goldenBatches(t) {
		b := n.batch
		r := recordVector{
			Name: n.name, Producer: hex64(b.Producer), Sequence: hex64(b.Sequence), Watermark: hex64(uint64(b.Watermark)),
			SentAt: b.SentAt.UnixMicro(), Behind: b.Behind.Milliseconds(), Heartbeat: b.Heartbeat(), Items: []itemVector{}, Hex: hex.EncodeToString(b.AppendBatch(nil)),
		}
		if !b.CommittedAt.IsZero() {
			r.CommittedAt = b.CommittedAt.UnixMicro()
		}
		for _, i := range b.Items {
			iv := itemVector{Key: vectorKey(i.Key), Version: hex64(uint64(i.Version)), Empty: i.Empty}
			if i.Value != nil {
				s := string(i.Value)
				iv.Value = &s
			}
			r.Items = append(r.Items, iv)
		}
		out = append(out, r)
	}
	return out
}

func partitionVectors(testing.TB) []partitionVector {
	var out []partitionVector
	for _, k := range []rowtide.Key{
		{Module: "", Version: 1, ID: ""},
		{Module: "a", Version: 1, ID: ""},
		{Module: "event", Version: 1, ID: "42"},
		{Module: "event", Version: 2, ID: "42"},
		{Module: "event_page", Version: 1, ID: "7:é"},
	} {
		p := partitionVector{Key: vectorKey(k), Hash: hex64(k.Hash()), PartitionOf12: k.Partition(12), PartitionOf: map[string]int32{}}
		for _, n := range []int32{1, 3, 64} {
			p.PartitionOf[strconv.Itoa(int(n))] = k.Partition(n)
		}
		out = append(out, p)
	}
	return out
}

func TestWire_PublishedVectorsHold(t *testing.T) {
	for name, vectors := range map[string]any{
		"envelopes.json": envelopeVectors(t), "records.json": recordVectors(t), "partitions.json": partitionVectors(t),
	} {
		t.Run(name, func(t *testing.T) { holdVectors(t, name, vectors) })
	}
}

// holdVectors demands that the published file is what the code makes.
func holdVectors(t *testing.T, name string, vectors any) {
	t.Helper()
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(vectors); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "wire", name)
	if *update {
		if err := os.WriteFile(path, buf.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(buf.Bytes(), want) {
		t.Errorf("%s no longer matches the code: readers in the field would break; if that is meant, run go test . -update\ngot:\n%s", path, buf.Bytes())
	}
}

// The vectors are read back from their file, as another language would.
func TestWire_PublishedEnvelopesDecode(t *testing.T) {
	var vectors []envelopeVector
	readVectors(t, "envelopes.json", &vectors)
	want := goldenEntries(t)
	if len(vectors) != len(want) {
		t.Fatalf("%d vectors, want %d", len(vectors), len(want))
	}
	for i, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			b, err := hex.DecodeString(v.Hex)
			if err != nil {
				t.Fatal(err)
			}
			w := want[i].entry
			w.TTL = want[i].ttl
			got, err := rowtide.DecodeEnvelope(rowtide.Key(v.Key), b)
			if err != nil {
				t.Fatal(err)
			}
			sameEntry(t, got, w)
			if ver, ok := rowtide.EnvelopeVersion(b); !ok || ver != w.Version {
				t.Errorf("version alone: %v %t, want %v", ver, ok, w.Version)
			}
		})
	}
}

func TestWire_PublishedRecordsDecode(t *testing.T) {
	var vectors []recordVector
	readVectors(t, "records.json", &vectors)
	want := goldenBatches(t)
	if len(vectors) != len(want) {
		t.Fatalf("%d vectors, want %d", len(vectors), len(want))
	}
	for i, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			b, err := hex.DecodeString(v.Hex)
			if err != nil {
				t.Fatal(err)
			}
			got, err := rowtide.DecodeBatch(b)
			if err != nil {
				t.Fatal(err)
			}
			sameBatch(t, got, want[i].batch)
			if got.Heartbeat() != v.Heartbeat {
				t.Errorf("heartbeat=%t, want %t", got.Heartbeat(), v.Heartbeat)
			}
		})
	}
}

func readVectors(t *testing.T, name string, into any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "wire", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatal(err)
	}
}
