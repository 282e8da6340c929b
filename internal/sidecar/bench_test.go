package sidecar_test

import (
	"io"
	"strings"
	"testing"
)

// BenchmarkGet is one GET of 200 bytes from the local level, over loopback. An op is
// a command; allocations are those of the whole process, and the client makes none.
func BenchmarkGet(b *testing.B) {
	key := "rowtide:event:1:12345"
	for _, bm := range []struct {
		name     string
		pipeline int
		args     []string
	}{
		{"single", 1, []string{"GET", key}},
		{"pipeline16", 16, []string{"GET", key}},
		{"pipeline128", 128, []string{"GET", key}},
		{"mget10", 1, append([]string{"MGET"}, strings.Fields(strings.Repeat(key+" ", 10))...)},
	} {
		b.Run(bm.name, func(b *testing.B) {
			r := newRig(b)
			r.put("event", 1, "12345", strings.Repeat("x", 200))
			c := r.dial()
			reply := make([]byte, bm.pipeline*len(c.do(bm.args...)))
			batch := []byte(strings.Repeat(encode(bm.args...), bm.pipeline))
			b.ReportAllocs()
			b.ResetTimer()
			for range max(1, b.N/bm.pipeline) {
				if _, err := c.Write(batch); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c.r, reply); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// The id and the copy of the value; all else is used again.
func TestGet_AllocatesTheKeyAndTheValueOnly(t *testing.T) {
	r := newRig(t)
	r.put("event", 1, "12345", strings.Repeat("x", 200))
	c := r.dial()
	const n = 16
	reply := make([]byte, n*len(c.do("GET", "event:12345")))
	batch := []byte(strings.Repeat(encode("GET", "event:12345"), n))
	allocs := testing.AllocsPerRun(500, func() {
		if _, err := c.Write(batch); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(c.r, reply); err != nil {
			t.Error(err)
		}
	})
	if each := allocs / n; each > 2.2 {
		t.Errorf("%.2f allocations for a GET, want 2", each)
	}
}
