package localsync

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide"
)

// inspection is what peek and inspect serve of one key.
type inspection struct {
	Module    string          `json:"module"`
	Version   uint16          `json:"version"`
	Key       string          `json:"key"`
	RedisKey  string          `json:"redis_key"`
	Partition uint16          `json:"partition"`
	Floor     rowtide.Version `json:"floor,string"`
	FloorText string          `json:"floor_text"`
	// Served is whether a read now would be answered from the local copy alone.
	Served   bool     `json:"served"`
	Local    copyOf   `json:"local"`
	Redis    *copyOf  `json:"redis,omitempty"`
	Loader   *copyOf  `json:"loader,omitempty"`
	Verdicts []string `json:"verdicts,omitempty"`
}

// copyOf is one place's copy of a key. State is value, empty, none, unusable,
// error or not_asked; the last three say why in Note.
type copyOf struct {
	State       string          `json:"state"`
	Note        string          `json:"note,omitempty"`
	Version     rowtide.Version `json:"value_version,string"`
	VersionText string          `json:"version_text,omitempty"`
	Flags       []string        `json:"flags,omitempty"`
	Generation  uint32          `json:"generation"`
	// Age is the time since the local copy was last shown to be current, or since
	// the one in Redis was built.
	Age     time.Duration `json:"age_ns"`
	TTL     time.Duration `json:"ttl_ns"`
	Size    int           `json:"size"`
	Payload *shown        `json:"payload,omitempty"`

	payload []byte
}

// shown is a payload as the page shows it.
type shown struct {
	Form string `json:"form"` // json, text or base64
	Text string `json:"text"`
	Cut  bool   `json:"cut"`
}

// maxShown bounds a payload on the page.
const maxShown = 64 << 10

func show(b []byte) *shown {
	s := &shown{Form: "text", Cut: len(b) > maxShown}
	if json.Valid(b) {
		s.Form = "json"
	}
	b = b[:min(len(b), maxShown)]
	for s.Cut && len(b) > 0 && !utf8.RuneStart(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	if s.Cut && len(b) > 0 {
		b = b[:len(b)-1] // the start of a letter that is cut
	}
	if !utf8.Valid(b) {
		s.Form, s.Text = "base64", base64.StdEncoding.EncodeToString(b)
		return s
	}
	s.Text = string(b)
	return s
}

func (h *handler) peek(r *http.Request) (*inspection, *fault) {
	m, f := h.module(r)
	if f != nil {
		return nil, f
	}
	at, _, f := m.key(r.URL.Query().Get("key"))
	if f != nil {
		return nil, f
	}
	i := m.local(&at)
	h.reveal(i)
	return i, nil
}

// local looks at this node without disturbing it.
func (m *core) local(at *slot) *inspection {
	c := m.c
	i := &inspection{
		Module: at.key.Module, Version: at.key.Version, Key: at.key.ID, RedisKey: c.redisName(at), Partition: at.part,
		Floor: c.store.floor(at.hash), Local: copyOf{State: "none"},
	}
	i.FloorText = i.Floor.String()
	_, i.Served = c.Peek(at.key)
	envelope, row, ok := c.store.read([]byte(at.name), at.hash, 0)
	if !ok {
		return i
	}
	e, err := rowtide.DecodeEnvelope(at.key, envelope)
	if err != nil {
		i.Local = copyOf{State: "unusable", Note: err.Error()}
		return i
	}
	e.Version = row.version
	i.Local = copyFrom(&e, time.Duration(c.now()-row.verified))
	i.Local.TTL = time.Duration(row.hardAt() - row.verified)
	for _, f := range []struct {
		flag metaFlags
		name string
	}{{metaInvalid, "changed since"}, {metaDegraded, "stands for an error"}} {
		if row.has(f.flag) {
			i.Local.Flags = append(i.Local.Flags, f.name)
		}
	}
	return i
}

func copyFrom(e *rowtide.Entry, age time.Duration) copyOf {
	v := copyOf{
		State: "value", Version: e.Version, VersionText: e.Version.String(), Generation: e.Generation,
		Age: max(age, 0), TTL: e.TTL, Size: len(e.Payload), payload: e.Payload,
	}
	if e.Empty() {
		v.State = "empty"
	}
	for _, f := range []struct {
		flag rowtide.Flags
		name string
	}{{rowtide.FlagEmpty, "EMPTY"}, {rowtide.FlagDeleted, "deleted"}, {rowtide.FlagFill, "loaded"}} {
		if e.Flags&f.flag != 0 {
			v.Flags = append(v.Flags, f.name)
		}
	}
	return v
}

// inspect compares this node, Redis and, for a POST, the loader.
func (h *handler) inspect(r *http.Request) (*inspection, *fault) {
	m, f := h.module(r)
	if f != nil {
		return nil, f
	}
	at, typed, f := m.key(r.URL.Query().Get("key"))
	if f != nil {
		return nil, f
	}
	ask := r.Method == http.MethodPost
	if ask {
		select {
		case h.loading <- struct{}{}:
			defer func() { <-h.loading }()
		default:
			return nil, &fault{http.StatusTooManyRequests, "the loader is being asked already", "try again in a moment"}
		}
	}
	var i *inspection
	done := make(chan struct{})
	if !m.c.spawn(func() {
		defer close(done)
		i = m.local(&at)
		i.Redis = m.inRedis(&at)
		i.Loader = &copyOf{State: "not_asked", Note: "a POST asks it"}
		if ask {
			i.Loader = m.fromLoader(typed)
		}
	}) {
		return nil, &fault{http.StatusServiceUnavailable, ErrClosed.Error(), "ask a node that runs"}
	}
	<-done // every step has its deadline
	i.Verdicts = i.judge()
	h.reveal(i)
	return i, nil
}

func (h *handler) reveal(i *inspection) {
	for _, v := range []*copyOf{&i.Local, i.Redis, i.Loader} {
		if v != nil && v.State == "value" && h.payloads {
			v.Payload = show(v.payload)
		}
	}
}

// inRedis reads the key beside the reads' way, so that a failure here does not
// keep them off Redis.
func (m *core) inRedis(at *slot) *copyOf {
	b, err := redisCall(m.c.life, m.c, func(ctx context.Context) ([]byte, error) {
		return m.c.opt.Redis.Get(ctx, m.c.redisName(at)).Bytes()
	})
	if errors.Is(err, redis.Nil) {
		return &copyOf{State: "none"}
	}
	if err != nil {
		return &copyOf{State: "error", Note: err.Error()}
	}
	e, err := rowtide.DecodeEnvelope(at.key, b)
	if err != nil {
		return &copyOf{State: "unusable", Note: err.Error(), Size: len(b)}
	}
	v := copyFrom(&e, m.c.opt.Now().Sub(e.BuiltAt))
	return &v
}

// fromLoader asks the loader; nothing keeps the answer.
func (m *core) fromLoader(typed any) *copyOf {
	if m.load == nil {
		return &copyOf{State: "not_asked", Note: "the module has no loader"}
	}
	if typed == nil {
		return &copyOf{State: "not_asked", Note: errOwnSpelling.Error()}
	}
	ctx, cancel := context.WithTimeout(m.c.life, m.policy.timeout)
	defer cancel()
	began := m.c.now()
	got, err := bounded(ctx, m.c.wg.Go, func(ctx context.Context) ([]loaded, error) {
		return m.load(ctx, []any{typed})
	})
	m.stats.loads.Add(1)
	m.c.opt.Observer.Loaded(m.policy.name, 1, time.Duration(m.c.now()-began), err)
	if err == nil {
		err = got[0].err
	}
	switch {
	case err != nil:
		m.stats.loadErrors.Add(1)
		return &copyOf{State: "error", Note: err.Error()}
	case got[0].absent:
		return &copyOf{State: "empty"}
	}
	return &copyOf{State: "value", Size: len(got[0].payload), payload: got[0].payload, Note: fmt.Sprintf("took %v", time.Duration(m.c.now()-began).Round(100*time.Microsecond))}
}
