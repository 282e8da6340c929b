package rowtide

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"time"
)

// Flags of an [Entry].
type Flags uint8

// The flag bits. Bits that a reader does not know make the envelope unreadable
// to it ([ErrNewerFormat]), so a new meaning can never be read as an old one.
const (
	// FlagEmpty marks an EMPTY entry: the thing is known to be absent.
	FlagEmpty Flags = 1 << iota
	// FlagDeleted, with FlagEmpty, says that a committed DELETE (or a row that
	// left the module's key) made the entry, not a look-up that found nothing.
	FlagDeleted
	// FlagFill marks a value that a node loaded; it loses against a change of
	// equal version.
	FlagFill

	knownFlags = FlagEmpty | FlagDeleted | FlagFill
)

// Entry is what one key holds: a value or the knowledge that there is none, and
// the version that orders it.
type Entry struct {
	Key     Key
	Version Version
	Flags   Flags
	// Generation is the module's; entries of an older one are to be read again.
	Generation uint32
	// BuiltAt is when the value was made, to the millisecond. It dates the value
	// for refresh; it never orders anything.
	BuiltAt time.Time
	// TTL is how long the entry lives from its last write; zero is for ever.
	TTL time.Duration
	// Payload is the module's encoded value; nil in an EMPTY entry.
	Payload []byte
	// Push asks that the value travel with the invalidation if it is small. It is
	// not part of the envelope.
	Push bool
}

// Empty reports whether the entry says "there is no such thing".
func (e *Entry) Empty() bool { return e.Flags&FlagEmpty != 0 }

// The envelope, big endian throughout so that byte order is version order:
//
//	 0  1  magic 0xA7
//	 1  1  flags
//	 2  2  module version
//	 4  8  version
//	12  4  generation
//	16  8  built at, milliseconds since 1970
//	24  4  ttl, milliseconds (saturates at 49 days; 0 is none)
//	28  4  CRC-32C of all bytes but these four
//	32  8  key check: Key.Hash
//	40  …  payload
//
// The version's place is fixed for all future formats: the overwrite script in
// Redis reads bytes 4 to 11 and nothing else.
const (
	EnvelopeMagic  = 0xA7
	EnvelopeHeader = 40
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// AppendEnvelope appends the entry's envelope to dst.
func (e *Entry) AppendEnvelope(dst []byte) []byte {
	at := len(dst)
	dst = append(dst, EnvelopeMagic, byte(e.Flags))
	dst = binary.BigEndian.AppendUint16(dst, e.Key.Version)
	dst = binary.BigEndian.AppendUint64(dst, uint64(e.Version))
	dst = binary.BigEndian.AppendUint32(dst, e.Generation)
	dst = binary.BigEndian.AppendUint64(dst, uint64(e.BuiltAt.UnixMilli()))
	dst = binary.BigEndian.AppendUint32(dst, uint32(min(e.TTL.Milliseconds(), math.MaxUint32)))
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint64(dst, e.Key.Hash())
	dst = append(dst, e.Payload...)
	binary.BigEndian.PutUint32(dst[at+28:], envelopeSum(dst[at:]))
	return dst
}

func envelopeSum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:28], castagnoli), castagnoli, b[32:])
}

// DecodeEnvelope reads the envelope that is stored under k. The payload aliases
// b. The errors are [ErrNotEnvelope], [ErrNewerFormat] and [ErrCorrupt]; the
// last also when the envelope was written for another key.
func DecodeEnvelope(k Key, b []byte) (Entry, error) {
	if len(b) < EnvelopeHeader || b[0] != EnvelopeMagic {
		return Entry{}, fmt.Errorf("decode %s: %d bytes: %w", k, len(b), ErrNotEnvelope)
	}
	if Flags(b[1])&^knownFlags != 0 {
		return Entry{}, fmt.Errorf("decode %s: flags %#x: %w", k, b[1], ErrNewerFormat)
	}
	if got, want := binary.BigEndian.Uint32(b[28:]), envelopeSum(b); got != want {
		return Entry{}, fmt.Errorf("decode %s: checksum %08x, computed %08x: %w", k, got, want, ErrCorrupt)
	}
	if binary.BigEndian.Uint64(b[32:]) != k.Hash() {
		return Entry{}, fmt.Errorf("decode %s: written for another key: %w", k, ErrCorrupt)
	}
	e := Entry{
		Key:        Key{Module: k.Module, Version: binary.BigEndian.Uint16(b[2:]), ID: k.ID},
		Version:    Version(binary.BigEndian.Uint64(b[4:])),
		Flags:      Flags(b[1]),
		Generation: binary.BigEndian.Uint32(b[12:]),
		BuiltAt:    time.UnixMilli(int64(binary.BigEndian.Uint64(b[16:]))).UTC(),
		TTL:        time.Duration(binary.BigEndian.Uint32(b[24:])) * time.Millisecond,
	}
	if !e.Empty() {
		e.Payload = b[EnvelopeHeader:]
	}
	return e, nil
}

// EnvelopeVersion reads only the version, for comparisons that do not need the
// payload; ok is false when b is too short or not an envelope.
func EnvelopeVersion(b []byte) (v Version, ok bool) {
	if len(b) < 12 || b[0] != EnvelopeMagic {
		return 0, false
	}
	return Version(binary.BigEndian.Uint64(b[4:])), true
}
