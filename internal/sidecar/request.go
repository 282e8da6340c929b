package sidecar

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	"github.com/tidwall/redcon"
)

const (
	// maxBulk and maxArray are Redis's own limits of the protocol.
	maxBulk  = 512 << 20
	maxArray = 1 << 20
	// lineBuffer holds what is read ahead, and bounds an inline command and the
	// line before an argument.
	lineBuffer = 4 << 10
	// strangerArgs and strangerBytes bound a request before AUTH, as Redis does.
	strangerArgs, strangerBytes = 10, 16 << 10
	// bulkPart is how much of an argument is made room for at a time: a client that
	// only says how long it will be gets no more.
	bulkPart = 64 << 10
	// pipelineBuffer takes its place once a client has filled it at once.
	pipelineBuffer = 16 << 10
)

// protocolError ends a connection; its text is Redis's.
type protocolError string

func (e protocolError) Error() string { return "Protocol error: " + string(e) }

// requests reads one connection's commands. A well-formed command that is larger
// than the limits is read to its end and marked, so that the connection lives on.
type requests struct {
	from     io.Reader
	r        *bufio.Reader
	filled   bool // lineBuffer, at once
	maxArgs  int
	maxBytes int
	stranger bool // has not given the password

	// Of the present request; both are used again for the next.
	args  [][]byte
	bytes []byte
	ends  []int
	large bool // arguments are missing
	// nameless: the command's own name is among them.
	nameless bool
}

func newRequests(r io.Reader, maxArgs, maxBytes int) *requests {
	q := &requests{from: r, maxArgs: maxArgs, maxBytes: maxBytes}
	q.r = bufio.NewReaderSize(q, lineBuffer)
	return q
}

// Read implements io.Reader for the first buffer.
func (q *requests) Read(p []byte) (int, error) {
	n, err := q.from.Read(p)
	q.filled = q.filled || n == lineBuffer
	return n, err
}

// next reads a command into args, which are valid until the following call. An
// empty line is a command without arguments.
func (q *requests) next() error {
	if cap(q.bytes) > lineBuffer {
		q.bytes, q.args, q.ends = nil, nil, nil // a rare large one must not stay for ever
	}
	if q.filled && q.r.Size() == lineBuffer && q.r.Buffered() == 0 {
		q.r = bufio.NewReaderSize(q.from, pipelineBuffer)
	}
	q.args, q.bytes, q.ends, q.large = q.args[:0], q.bytes[:0], q.ends[:0], false
	q.nameless = false
	line, err := q.line("too big inline request")
	if err != nil {
		return err
	}
	if len(line) == 0 || line[0] != '*' {
		return q.inline(line)
	}
	if less, negative := bytes.CutPrefix(line[1:], []byte{'-'}); negative {
		if _, ok := number(less, maxArray); ok {
			return nil // as Redis takes it
		}
	}
	n, ok := number(line[1:], maxArray)
	if !ok {
		return protocolError("invalid multibulk length")
	}
	args, size := q.most()
	for i := range n {
		if err := q.argument(i < args, size); err != nil {
			return err
		}
	}
	at := 0
	for _, end := range q.ends {
		q.args = append(q.args, q.bytes[at:end:end])
		at = end
	}
	return nil
}

// most is how many arguments and bytes of a command are kept.
func (q *requests) most() (args, size int) {
	if q.stranger {
		return min(q.maxArgs, strangerArgs), min(q.maxBytes, strangerBytes)
	}
	return q.maxArgs, q.maxBytes
}

// argument reads one bulk string, and keeps it if it may and all of them have at
// most so many bytes.
func (q *requests) argument(keep bool, most int) error {
	line, err := q.line("too big bulk count string")
	if err != nil {
		return err
	}
	if len(line) == 0 || line[0] != '$' {
		got := byte(' ')
		if len(line) > 0 {
			got = line[0]
		}
		return protocolError("expected '$', got '" + string(rune(got)) + "'")
	}
	n, ok := number(line[1:], maxBulk)
	if !ok {
		return protocolError("invalid bulk length")
	}
	if !keep || len(q.bytes)+n > most {
		q.large, q.nameless = true, q.nameless || len(q.ends) == 0
		if _, err := q.r.Discard(n); err != nil {
			return err
		}
	} else {
		for n > 0 {
			at, part := len(q.bytes), min(n, bulkPart)
			q.bytes = append(q.bytes, make([]byte, part)...)
			if _, err := io.ReadFull(q.r, q.bytes[at:]); err != nil {
				return err
			}
			n -= part
		}
		q.ends = append(q.ends, len(q.bytes))
	}
	// As Redis does, the two bytes of the line's end are not looked at.
	_, err = q.r.Discard(2)
	return err
}

// line reads up to a line break, which is cut off. It is valid until the next read.
func (q *requests) line(tooLong protocolError) ([]byte, error) {
	line, err := q.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) || err == nil && len(line) > lineBuffer {
		return nil, tooLong
	}
	if err != nil {
		return nil, err
	}
	line = line[:len(line)-1]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line, nil
}

// inline splits a command that a person typed.
func (q *requests) inline(line []byte) error {
	// The library splits at blanks and knows quotes; it wants its line break back.
	// A first $ would be another protocol to it.
	if len(line) > 0 && line[0] == '$' {
		return protocolError("unexpected '$'")
	}
	// It does not know this escape of Redis's, and would make another key of it.
	if bytes.Contains(line, []byte(`\x`)) {
		return protocolError(`\x in an inline command is not supported`)
	}
	_, args, _, _, err := redcon.ReadNextCommand(append(append([]byte(nil), line...), '\n'), nil)
	if err != nil {
		return protocolError("unbalanced quotes in request")
	}
	if most, _ := q.most(); len(args) > most {
		q.large, args = true, args[:1]
	}
	q.args = append(q.args, args...)
	return nil
}

// number reads digits up to most.
func number(b []byte, most int) (int, bool) {
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		if n = n*10 + int(c-'0'); n > most {
			return 0, false
		}
	}
	return n, len(b) > 0
}
