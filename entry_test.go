package rowtide_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rowtide/rowtide"
)

// reporter is what a test and a rapid check have in common.
type reporter interface {
	Helper()
	Errorf(format string, args ...any)
}

func sameEntry(t reporter, got, want rowtide.Entry) {
	t.Helper()
	if got.Key != want.Key || got.Version != want.Version || got.Flags != want.Flags || got.Generation != want.Generation ||
		!got.BuiltAt.Equal(want.BuiltAt) || got.TTL != want.TTL || !bytes.Equal(got.Payload, want.Payload) {
		t.Errorf("entry\n got %+v\nwant %+v", got, want)
	}
}

// seal gives altered bytes a checksum that holds.
func seal(b []byte) []byte {
	table := crc32.MakeTable(crc32.Castagnoli)
	binary.BigEndian.PutUint32(b[28:], crc32.Update(crc32.Checksum(b[:28], table), table, b[32:]))
	return b
}

func TestDecodeEnvelope_Errors(t *testing.T) {
	e := goldenEntries(t)[0].entry
	good := e.AppendEnvelope(nil)
	alter := func(fn func(b []byte) []byte) []byte { return fn(bytes.Clone(good)) }
	other := e.Key
	other.ID = "43"
	for _, tt := range []struct {
		name string
		key  rowtide.Key
		in   []byte
		want error
	}{
		{"nothing", e.Key, nil, rowtide.ErrNotEnvelope},
		{"one byte short of a header", e.Key, good[:rowtide.EnvelopeHeader-1], rowtide.ErrNotEnvelope},
		{"foreign bytes", e.Key, []byte(`{"id":42,"title":"somebody else's JSON value"}`), rowtide.ErrNotEnvelope},
		{"other magic", e.Key, alter(func(b []byte) []byte { b[0] = 0xA8; return seal(b) }), rowtide.ErrNotEnvelope},
		{"unknown flag", e.Key, alter(func(b []byte) []byte { b[1] |= 8; return seal(b) }), rowtide.ErrNewerFormat},
		{"unknown flag before checksum", e.Key, alter(func(b []byte) []byte { b[1] |= 0x80; return b }), rowtide.ErrNewerFormat},
		{"payload bit", e.Key, alter(func(b []byte) []byte { b[len(b)-1] ^= 1; return b }), rowtide.ErrCorrupt},
		{"version bit", e.Key, alter(func(b []byte) []byte { b[11] ^= 1; return b }), rowtide.ErrCorrupt},
		{"key check bit", e.Key, alter(func(b []byte) []byte { b[39] ^= 1; return b }), rowtide.ErrCorrupt},
		{"cut short", e.Key, good[:len(good)-1], rowtide.ErrCorrupt},
		{"one byte more", e.Key, append(bytes.Clone(good), 0), rowtide.ErrCorrupt},
		{"another key's", other, good, rowtide.ErrCorrupt},
		{"another module's", rowtide.Key{Module: "venue", Version: 1, ID: "42"}, good, rowtide.ErrCorrupt},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := rowtide.DecodeEnvelope(tt.key, tt.in)
			if !errors.Is(err, tt.want) {
				t.Errorf("err=%v, want %v", err, tt.want)
			}
			sameEntry(t, got, rowtide.Entry{})
		})
	}
}

func TestDecodeEnvelope_EveryFlippedBitIsNoticed(t *testing.T) {
	e := goldenEntries(t)[0].entry
	good := e.AppendEnvelope(nil)
	for i := range len(good) * 8 {
		b := bytes.Clone(good)
		b[i/8] ^= 1 << (i % 8)
		if _, err := rowtide.DecodeEnvelope(e.Key, b); err == nil {
			t.Errorf("bit %d of byte %d: no error", i%8, i/8)
		}
	}
}

// The key space's version is the envelope's own: a reader that looks up under
// one version sees which one wrote.
func TestDecodeEnvelope_TakesTheModuleVersionFromTheBytes(t *testing.T) {
	e := goldenEntries(t)[0].entry
	k := e.Key
	k.Version = 9
	got, err := rowtide.DecodeEnvelope(k, e.AppendEnvelope(nil))
	if err != nil || got.Key != e.Key {
		t.Errorf("key=%v err=%v, want %v", got.Key, err, e.Key)
	}
}

func TestEnvelopeVersion_NeedsTwelveBytesAndTheMagic(t *testing.T) {
	e := goldenEntries(t)[0].entry
	good := e.AppendEnvelope(nil)
	for _, tt := range []struct {
		name string
		in   []byte
		ok   bool
	}{
		{"nothing", nil, false},
		{"eleven bytes", good[:11], false},
		{"twelve bytes", good[:12], true},
		{"other magic", append([]byte{0xB7}, good[1:]...), false},
	} {
		v, ok := rowtide.EnvelopeVersion(tt.in)
		if want := map[bool]rowtide.Version{true: e.Version}[tt.ok]; ok != tt.ok || v != want {
			t.Errorf("%s: %v %t, want %v %t", tt.name, v, ok, want, tt.ok)
		}
	}
}

func TestAppendEnvelope_KeepsWhatIsThere(t *testing.T) {
	e := goldenEntries(t)[0].entry
	alone := e.AppendEnvelope(nil)
	if got, want := e.AppendEnvelope([]byte("before")), append([]byte("before"), alone...); !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

func anyEntry(t *rapid.T) rowtide.Entry {
	e := rowtide.Entry{
		Key: rowtide.Key{
			Module: rapid.String().Draw(t, "module"), Version: rapid.Uint16().Draw(t, "key version"), ID: rapid.String().Draw(t, "id"),
		},
		Version:    rowtide.Version(rapid.Uint64().Draw(t, "version")),
		Flags:      rowtide.Flags(rapid.IntRange(0, 7).Draw(t, "flags")),
		Generation: rapid.Uint32().Draw(t, "generation"),
		BuiltAt:    time.UnixMilli(rapid.Int64Range(-1<<45, 1<<45).Draw(t, "built")).UTC(),
		TTL:        time.Duration(rapid.Int64Range(0, math.MaxUint32).Draw(t, "ttl")) * time.Millisecond,
	}
	if !e.Empty() {
		e.Payload = rapid.SliceOf(rapid.Byte()).Draw(t, "payload")
	}
	return e
}

func TestEnvelope_RoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := anyEntry(t)
		got, err := rowtide.DecodeEnvelope(e.Key, e.AppendEnvelope(nil))
		if err != nil {
			t.Fatal(err)
		}
		sameEntry(t, got, e)
	})
}

// Big endian throughout, so that a plain byte comparison at the fixed place
// orders two envelopes, as the script in Redis does.
func TestEnvelope_ByteOrderIsVersionOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyEntry(t), anyEntry(t)
		got := bytes.Compare(a.AppendEnvelope(nil)[4:12], b.AppendEnvelope(nil)[4:12])
		want := 0
		if a.Version < b.Version {
			want = -1
		} else if a.Version > b.Version {
			want = 1
		}
		if got != want {
			t.Fatalf("bytes compare %d, versions %d", got, want)
		}
	})
}

func FuzzDecodeEnvelope(f *testing.F) {
	for _, n := range goldenEntries(f) {
		f.Add(n.entry.Key.Module, n.entry.Key.ID, n.entry.AppendEnvelope(nil), true)
	}
	f.Add("event", "42", []byte{0xA7}, false)
	f.Fuzz(func(t *testing.T, module, id string, b []byte, mend bool) {
		k := rowtide.Key{Module: module, ID: id}
		if mend && len(b) >= rowtide.EnvelopeHeader {
			// Past the checks, so that the fuzzer gets at what is behind them.
			binary.BigEndian.PutUint64(b[32:], k.Hash())
			seal(b)
		}
		e, err := rowtide.DecodeEnvelope(k, b)
		if err != nil {
			sameEntry(t, e, rowtide.Entry{})
			return
		}
		again := e.AppendEnvelope(nil)
		// An EMPTY entry's payload means nothing and is dropped.
		if !e.Empty() && !bytes.Equal(again, b) {
			t.Errorf("encoded again:\n got %x\nwant %x", again, b)
		}
		twice, err := rowtide.DecodeEnvelope(k, again)
		if err != nil {
			t.Fatal(err)
		}
		sameEntry(t, twice, e)
	})
}
