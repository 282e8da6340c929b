package stockapi

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// HoldID names a hold in the API: where it lives and which one it is. Its text is
// "event.cell.hash", so that one look-up in Redis finds it without an index.
type HoldID struct {
	Cell Cell
	// Hash is the 26 characters that name the hold in Redis, Kafka and MySQL. They
	// are unique by themselves, since the event is hashed along.
	Hash string
}

// String is the id as the API shows it.
func (h HoldID) String() string {
	return h.Cell.Event + "." + strconv.Itoa(h.Cell.N) + "." + h.Hash
}

// ParseHoldID reads what String wrote.
func ParseHoldID(s string) (HoldID, error) {
	event, rest, _ := strings.Cut(s, ".")
	cell, hash, _ := strings.Cut(rest, ".")
	n, err := strconv.Atoi(cell)
	if err != nil || n < 0 || strconv.Itoa(n) != cell || !validEvent(event) || !validHash(hash) {
		return HoldID{}, fmt.Errorf("%w: hold id %q: want EVENT.CELL.HASH", ErrInvalid, s)
	}
	return HoldID{Cell: Cell{Event: event, N: n}, Hash: hash}, nil
}

func validHash(s string) bool {
	if len(s) != idLen {
		return false
	}
	for i := 0; i < len(s); i++ {
		if b := s[i]; (b < 'a' || b > 'z') && (b < '2' || b > '7') {
			return false
		}
	}
	return true
}

var lowerBase32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// holdHash derives the hold from who asks for what with which idempotency key, so
// that a repeated request meets its own record whichever node takes it. 26
// characters are 130 bits: two requests never meet by chance.
func holdHash(client, event, user, key string) string {
	sum := digest(client, event, user, key)
	return lowerBase32.EncodeToString(sum[:])[:idLen]
}

// fingerprint tells a repeated request from another one under the same key.
func fingerprint(parts ...string) string {
	sum := digest(parts...)
	return hex.EncodeToString(sum[:8])
}

// digest hashes parts with their lengths, so that ("ab","c") is not ("a","bc").
func digest(parts ...string) [sha256.Size]byte {
	var buf []byte
	for _, p := range parts {
		buf = binary.BigEndian.AppendUint32(buf, uint32(len(p)))
		buf = append(buf, p...)
	}
	return sha256.Sum256(buf)
}
