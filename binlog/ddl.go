package binlog

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-mysql-org/go-mysql/replication"

	"github.com/rowtide/rowtide"
)

// lostRows makes changes of a statement that takes rows of watched tables away,
// or brings others, without logging them: TRUNCATE, DROP, RENAME, and ALTER that
// renames or touches partitions. Nothing in the log says which rows they are, so
// a change says that all are gone.
func (a *assembler) lostRows(schema string, q []byte, h *replication.EventHeader) []rowtide.Change {
	words := wordsOf(q)
	switch verb := firstWord(q); {
	case verb == "TRUNCATE", verb == "DROP", verb == "RENAME":
	case verb == "ALTER" && (hasWord(words, "PARTITION") || hasWord(words, "PARTITIONING") || hasWord(words, "RENAME") || hasWord(words, "TABLESPACE")):
	default:
		return nil
	}
	var out []rowtide.Change
	for _, table := range slices.Sorted(maps.Keys(a.watched)) {
		ts, name, _ := strings.Cut(table, ".")
		if !hasWord(words, name) || ts != schema && !hasWord(words, ts) {
			continue
		}
		a.log.Warn("a statement took rows of a watched table away without logging them; every entry made of the table is read again",
			"table", table, "statement", fmt.Sprintf("%.100s", q), "position", fmt.Sprintf("%s:%d", a.file, h.LogPos))
		out = append(out, rowtide.Change{Table: &rowtide.Table{Schema: ts, Name: name}, Op: rowtide.OpTruncate})
	}
	return out
}

// elsewhere reports whether a statement was made in, and names, only schemas that
// nothing is watched in. A statement that was made in no schema could be about
// any.
func (a *assembler) elsewhere(schema string, q []byte) bool {
	if schema == "" {
		return false
	}
	words := wordsOf(q)
	for table := range a.watched {
		ts, _, _ := strings.Cut(table, ".")
		if ts == schema || hasWord(words, ts) {
			return false
		}
	}
	return true
}

func wordsOf(q []byte) [][]byte {
	return bytes.FieldsFunc(q, func(r rune) bool { return strings.ContainsRune(" \t\r\n`.,;()=", r) })
}

func hasWord(words [][]byte, w string) bool {
	for _, x := range words {
		if strings.EqualFold(string(x), w) {
			return true
		}
	}
	return false
}
