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
	words := bytes.FieldsFunc(q, func(r rune) bool { return strings.ContainsRune(" \t\r\n`.,;()", r) })
	for table := range a.watched {
		ts, name, _ := strings.Cut(table, ".")
		if !hasWord(words, name) || ts != schema && !hasWord(words, ts) {
			continue
		}
		a.log.Warn("rows of a watched table are gone without a trace in the log; their entries stay until they age out, rowtide verify lists them",
			"table", table, "statement", fmt.Sprintf("%.100s", q), "position", fmt.Sprintf("%s:%d", a.file, h.LogPos))
	}
}

func hasWord(words [][]byte, w string) bool {
	for _, x := range words {
		if strings.EqualFold(string(x), w) {
			return true
		}
	}
	return false
}
