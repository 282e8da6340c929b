package overwrite

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"

	"github.com/rowtide/rowtide"
)

// PlainScript is [Script] for bare values with their version under a second key;
// its head comment documents the arguments. The results are the same.
//
//go:embed plain.lua
var PlainScript string

// VersionKey is where the version of the bare value under key is kept. In a
// cluster both share a slot, since the whole of key is the hash tag; that holds
// only while key has no braces of its own, see [Braced].
func VersionKey(key string) string { return "{" + key + "}:v" }

// Braced reports whether a key cannot share a slot with its [VersionKey].
func Braced(key string) bool { return strings.ContainsAny(key, "{}") }

// PlainVersion is what a version key holds: 16 hex digits of version, two of
// flags, which tell an EMPTY entry from an empty value.
func PlainVersion(v rowtide.Version, f rowtide.Flags) string {
	return fmt.Sprintf("%016x%02x", uint64(v), uint8(f))
}

// ParsePlainVersion reads what [PlainVersion] wrote; ok is false for anything
// else, which counts as no version at all.
func ParsePlainVersion(s string) (v rowtide.Version, f rowtide.Flags, ok bool) {
	const versionDigits, digits = 16, 18
	if len(s) != digits {
		return 0, 0, false
	}
	version, err := strconv.ParseUint(s[:versionDigits], 16, 64)
	if err != nil {
		return 0, 0, false
	}
	flags, err := strconv.ParseUint(s[versionDigits:], 16, 8)
	return rowtide.Version(version), rowtide.Flags(flags), err == nil
}
