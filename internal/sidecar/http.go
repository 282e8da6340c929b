package sidecar

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/rowtide/rowtide/internal/httpjson"
	"github.com/rowtide/rowtide/localsync"
)

// Mounts are what a handler serves besides the values; nil ones are left out.
type Mounts struct {
	// Metrics at /metrics.
	Metrics http.Handler
	// Debug at /localsync/: the cache's own page.
	Debug http.Handler
}

// Handler serves /v1/{module}/{key}, batches at /v1/{module}, /healthz, /readyz and
// the mounts. With a password all but the health routes want it.
func (s *Server) Handler(m Mounts) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		httpjson.Write(w, http.StatusOK, map[string]string{"status": "ok"}, "")
	})
	mux.HandleFunc("GET /readyz", s.ready)
	if m.Metrics != nil {
		mux.Handle("GET /metrics", s.guarded(m.Metrics))
	}
	if m.Debug != nil {
		mux.Handle("/localsync/", s.guarded(m.Debug))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		s.refuse(w, http.StatusNotFound, "no such route", "GET /v1/{module}/{key}, POST /v1/{module}, /healthz, /readyz, /metrics")
	})
	values := s.guarded(http.HandlerFunc(s.values))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.counts.requests.Add(1)
		s.allowTime(w)
		// Not by the mux, which redirects a//b to a/b: another key.
		if strings.HasPrefix(r.URL.EscapedPath(), routeValues) {
			values.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// allowTime gives the reader of a response its time, from now on.
func (s *Server) allowTime(w http.ResponseWriter) {
	// A writer that has no deadlines is a test's.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.cfg.WriteTimeout))
}

const routeValues = "/v1/"

// values is /v1/{module} and /v1/{module}/{key}, where the key is all the rest.
func (s *Server) values(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.EscapedPath(), routeValues)
	name, key, one := strings.Cut(path, "/")
	name, err := url.PathUnescape(name)
	key, err2 := url.PathUnescape(key)
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case errors.Join(err, err2) != nil: // cannot be: the path was decoded before
		s.refuse(w, http.StatusBadRequest, "the path cannot be decoded", "encode the key")
		return
	case !read && (one || r.Method != http.MethodPost):
		w.Header().Set("Allow", "GET, HEAD, POST")
		s.refuse(w, http.StatusMethodNotAllowed, "rowtide node only reads", "write to the database; the rowtide daemon writes the cache")
		return
	}
	mod, err := s.modules.named(name)
	switch {
	case err != nil:
		s.refuse(w, http.StatusNotFound, err.Error(), "check the name of the module in the daemon's config")
	case one:
		s.value(w, r, mod, key)
	case read:
		s.batch(w, r, mod, r.URL.Query()["key"])
	default:
		s.batchByBody(w, r, mod)
	}
}

func (s *Server) guarded(h http.Handler) http.Handler {
	if s.cfg.Password == "" {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if _, password, basic := r.BasicAuth(); basic {
			given, ok = password, true
		}
		if !ok || !s.knows([]byte(given)) {
			// The one that a browser can ask its user for.
			w.Header().Set("WWW-Authenticate", `Basic realm="rowtide node", charset="UTF-8"`)
			s.refuse(w, http.StatusUnauthorized, "no or a wrong password", "send Authorization: Bearer and node.password, or Basic with it and any user")
			return
		}
		h.ServeHTTP(w, r)
	})
}

// refuse answers with what is wrong and what to do.
func (s *Server) refuse(w http.ResponseWriter, code int, fault, remedy string) {
	httpjson.Write(w, code, map[string]string{"error": fault, "remedy": remedy}, "")
}

// ready is whether values can be served; a silent bus is told and still ready: the
// values are checked against Redis then, and another node would be no better off.
func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	names := s.modules.names()
	degraded := s.cache.Stats().Bus.Silent > 0
	select {
	case <-s.cache.Ready():
	default:
		s.refuse(w, http.StatusServiceUnavailable, "the bus is not positioned yet", "wait a moment")
		return
	}
	if len(names) == 0 {
		s.refuse(w, http.StatusServiceUnavailable, "no module is known", "start the rowtide daemon, or list modules in the node's config")
		return
	}
	httpjson.Write(w, http.StatusOK, map[string]any{"status": "ready", "modules": names, "degraded": degraded}, "")
}

func (s *Server) value(w http.ResponseWriter, r *http.Request, mod *module, key string) {
	if len(key) > maxKey {
		s.refuse(w, http.StatusRequestURITooLong, fmt.Sprintf("a key of %d bytes is too long", len(key)), fmt.Sprintf("at most %d", maxKey))
		return
	}
	value, info, err := mod.values.Lookup(r.Context(), key)
	s.allowTime(w) // what Redis took is not the reader's
	describe(w.Header(), info)
	switch {
	case errors.Is(err, localsync.ErrNotFound):
		s.counts.misses.Add(1)
		s.refuse(w, http.StatusNotFound, "module "+mod.Name+" has no value under "+strconv.Quote(clip(key)), "none: the row does not exist, or the daemon has not written it yet")
	case err != nil:
		s.refuse(w, http.StatusServiceUnavailable, err.Error(), "try again; is Redis reachable from the node?")
	default:
		s.counts.hits.Add(1)
		tag := etag(info, value)
		w.Header().Set("ETag", tag)
		w.Header().Set("Cache-Control", "no-cache") // ask again each time; 304 is cheap
		if matches(r.Header.Get("If-None-Match"), tag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("Content-Type", contentType(mod.Codec))
		w.Header().Set("Content-Length", strconv.Itoa(len(value)))
		_, _ = w.Write(value) // the reader has gone away
	}
}

// describe tells what the value is worth.
func describe(h http.Header, i localsync.Info) {
	if i.Level != 0 {
		h.Set("Rowtide-Level", i.Level.String())
		h.Set("Rowtide-Version", i.Version.String())
		h.Set("Age", strconv.Itoa(int(i.Age.Seconds())))
	}
	if i.Stale {
		h.Set("Rowtide-Stale", "true")
	}
	if i.Degraded {
		h.Set("Rowtide-Degraded", "true")
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// etag is the version, with a checksum: two nodes may have loaded different states
// of a row under one aged watermark.
func etag(i localsync.Info, value []byte) string {
	return fmt.Sprintf(`"%016x-%08x"`, uint64(i.Version), crc32.Checksum(value, castagnoli))
}

func matches(header, tag string) bool {
	return slices.ContainsFunc(strings.Split(header, ","), func(t string) bool {
		t = strings.TrimSpace(t)
		return t == "*" || strings.TrimPrefix(t, "W/") == tag
	})
}

func contentType(codec string) string {
	switch codec {
	case "json", "":
		return "application/json"
	case "msgpack":
		return "application/vnd.msgpack"
	}
	return "application/octet-stream"
}

func (s *Server) batchByBody(w http.ResponseWriter, r *http.Request, mod *module) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(s.cfg.MaxRequest)))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		s.refuse(w, http.StatusRequestEntityTooLarge, err.Error(), fmt.Sprintf("send at most %d bytes (node.max_request)", s.cfg.MaxRequest))
		return
	}
	if err != nil {
		s.refuse(w, http.StatusBadRequest, "read the body: "+err.Error(), "send all of it")
		return
	}
	s.allowTime(w) // the body may have taken some
	// Numbers are keys as they are spelt.
	var list []json.RawMessage
	if err := json.Unmarshal(body, &list); err != nil {
		s.refuse(w, http.StatusBadRequest, "the body is not a JSON list", `send keys such as ["42","43"] or [42,43]`)
		return
	}
	keys := make([]string, len(list))
	for i, raw := range list {
		if raw[0] == '"' {
			err = json.Unmarshal(raw, &keys[i])
		} else if keys[i] = string(raw); raw[0] != '-' && (raw[0] < '0' || raw[0] > '9') {
			err = errors.New("neither")
		}
		if err != nil {
			s.refuse(w, http.StatusBadRequest, fmt.Sprintf("key %d is neither a string nor a number", i+1), `send keys such as ["42","43"] or [42,43]`)
			return
		}
	}
	s.batch(w, r, mod, keys)
}

// answer is a batch's: values by key, null where there is none, and what could not
// be read.
type answer struct {
	Values map[string]json.RawMessage `json:"values"`
	Errors map[string]string          `json:"errors,omitempty"`
}

func (s *Server) batch(w http.ResponseWriter, r *http.Request, mod *module, keys []string) {
	if len(keys) == 0 || len(keys) > s.cfg.MaxKeys {
		s.refuse(w, http.StatusBadRequest, fmt.Sprintf("%d keys", len(keys)), fmt.Sprintf("ask for 1 to %d keys (node.max_keys): ?key=1&key=2, or a JSON list in a POST", s.cfg.MaxKeys))
		return
	}
	for _, key := range keys {
		fault, remedy := "", ""
		switch {
		case len(key) > maxKey:
			fault, remedy = fmt.Sprintf("a key of %d bytes is too long", len(key)), fmt.Sprintf("at most %d", maxKey)
		case !utf8.ValidString(key) || strings.ContainsRune(key, utf8.RuneError):
			// Decoding may have put it there for something else.
			fault, remedy = "key "+strconv.Quote(clip(key))+" is not text that JSON can hold", "read it by GET /v1/{module}/{key}, percent-encoded"
		default:
			continue
		}
		s.refuse(w, http.StatusBadRequest, fault, remedy)
		return
	}
	a, size := answer{Values: make(map[string]json.RawMessage, len(keys)), Errors: map[string]string{}}, 0
	for some := range slices.Chunk(keys, readAtOnce) {
		values, err := mod.values.GetMany(r.Context(), some)
		s.allowTime(w)
		var partial *localsync.PartialError[string]
		if err != nil && !errors.As(err, &partial) {
			s.refuse(w, http.StatusServiceUnavailable, err.Error(), "try again")
			return
		}
		for _, key := range some {
			if partial != nil && partial.Failed[key] != nil {
				a.Errors[key] = partial.Failed[key].Error()
				continue
			}
			v, ok := values[key]
			size += len(v)
			a.put(key, mod.Codec, v, ok)
		}
		if size > maxReply {
			s.refuse(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the values have more than %d bytes together", maxReply), "ask for fewer keys at a time")
			return
		}
	}
	s.counts.misses.Add(a.absent())
	s.counts.hits.Add(int64(len(a.Values)) - a.absent())
	code := http.StatusOK
	if len(a.Values) == 0 {
		code = http.StatusServiceUnavailable
	}
	httpjson.Write(w, code, a, "")
}

var null = json.RawMessage("null")

// put adds a value; what is no JSON goes as base64.
func (a *answer) put(key, codec string, v []byte, ok bool) {
	switch {
	case !ok:
		a.Values[key] = null
	case codec != "json" && codec != "":
		a.Values[key] = json.RawMessage(strconv.Quote(base64.StdEncoding.EncodeToString(v)))
	case json.Valid(v):
		a.Values[key] = v
	default:
		a.Errors[key] = "the value is not JSON; read it by GET /v1/{module}/{key}"
	}
}

func (a *answer) absent() (n int64) {
	for _, v := range a.Values {
		if len(v) == len(null) && string(v) == string(null) {
			n++
		}
	}
	return n
}
