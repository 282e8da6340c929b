package binlog

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/go-mysql-org/go-mysql/replication"
)

// warnOfUnloggedRows tells, loudly, of a statement that takes rows of a watched
// table away without logging them: TRUNCATE, DROP, and ALTER of partitions. Their
// entries stay in Redis until they age out; nothing in the log says which they
// are.
func (a *assembler) warnOfUnloggedRows(schema string, q []byte, h *replication.EventHeader) {
	verb := firstWord(q)
	if verb != "TRUNCATE" && verb != "DROP" && (verb != "ALTER" || !bytes.Contains(bytes.ToUpper(q), []byte("PARTITION"))) {
		return
	}
	words := wordsOf(q)
	for table := range a.watched {
		ts, name, _ := strings.Cut(table, ".")
		if !hasWord(words, name) || ts != schema && !hasWord(words, ts) {
			continue
		}
		a.log.Warn("rows of a watched table are gone without a trace in the log; their entries stay until they age out, rowtide verify lists them",
			"table", table, "statement", fmt.Sprintf("%.100s", q), "position", fmt.Sprintf("%s:%d", a.file, h.LogPos))
	}
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
