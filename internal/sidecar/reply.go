package sidecar

import (
	"fmt"
	"strconv"

	"github.com/tidwall/redcon"
)

// reply gathers what a connection answers. The forms that only RESP3 has are
// written as RESP2's where the client did not ask for RESP3.
type reply struct {
	b     []byte
	resp3 bool
}

func (r *reply) status(s string)   { r.b = redcon.AppendString(r.b, s) }
func (r *reply) bulk(p []byte)     { r.b = redcon.AppendBulk(r.b, p) }
func (r *reply) text(s string)     { r.b = redcon.AppendBulkString(r.b, s) }
func (r *reply) integer(n int64)   { r.b = redcon.AppendInt(r.b, n) }
func (r *reply) array(n int)       { r.b = redcon.AppendArray(r.b, n) }
func (r *reply) fail(s string)     { r.b = redcon.AppendError(r.b, s) }
func (r *reply) failErr(err error) { r.fail("ERR " + err.Error()) }
func (r *reply) pairs(n int)       { r.head('%', n, 2*n) }
func (r *reply) set(n int)         { r.head('~', n, n) }
func (r *reply) wrongArity(c string) {
	r.fail(fmt.Sprintf("ERR wrong number of arguments for '%s' command", c))
}

// null is the absence of a value.
func (r *reply) null() {
	if r.resp3 {
		r.b = append(r.b, "_\r\n"...)
		return
	}
	r.b = redcon.AppendNull(r.b)
}

// verbatim is a text for people.
func (r *reply) verbatim(s string) {
	if !r.resp3 {
		r.text(s)
		return
	}
	r.b = strconv.AppendInt(append(r.b, '='), int64(len(s)+4), 10)
	r.b = append(r.b, "\r\ntxt:"...)
	r.b = append(append(r.b, s...), "\r\n"...)
}

func (r *reply) head(kind byte, n, asArray int) {
	if !r.resp3 {
		r.array(asArray)
		return
	}
	r.b = strconv.AppendInt(append(r.b, kind), int64(n), 10)
	r.b = append(r.b, "\r\n"...)
}

func (r *reply) texts(all ...string) {
	r.array(len(all))
	for _, s := range all {
		r.text(s)
	}
}
