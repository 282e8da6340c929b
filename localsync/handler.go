package localsync

import (
	"embed"
	"errors"
	"net/http"
	"path"
	"strings"

	"github.com/rowtide/rowtide/internal/httpjson"
)

// page is the debug page as it is served: no build step, nothing from elsewhere.
//
//go:embed page
var page embed.FS

// A HandlerOption changes what the debug page shows.
type HandlerOption func(*handler)

// WithPayloads lets the key inspector show what values hold, up to 64 KiB of
// each. Without it their sizes, versions and whether they are equal are told.
func WithPayloads() HandlerOption { return func(h *handler) { h.payloads = true } }

// Handler is the debug page: hit rates, the bus, the store, the keys read most,
// a key inspector and the settings in force; stats, peek, inspect and config are
// its JSON. It works under any path that ends in a slash, stripped or not:
//
//	mux.Handle("/localsync/", cache.Handler())
//
// It has no login and tells keys, so it belongs behind yours. It changes nothing.
// The one thing that costs others, a call of the loader, wants a POST from the
// page itself, is counted, and there is one at a time.
func (c *Cache) Handler(opts ...HandlerOption) http.Handler {
	h := &handler{c: c, loading: make(chan struct{}, 1), origin: http.NewCrossOriginProtection()}
	for _, o := range opts {
		o(h)
	}
	return h
}

type handler struct {
	c        *Cache
	payloads bool
	loading  chan struct{} // holds one token while a loader is being asked
	origin   *http.CrossOriginProtection
}

// fault is an error as the JSON endpoints tell it.
type fault struct {
	code   int
	Error  string `json:"error"`
	Remedy string `json:"remedy"`
}

// The page lives from its own files and endpoints alone.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// ServeHTTP implements http.Handler. Only the last part of the path counts, so
// that the page need not know where it is mounted.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("Content-Security-Policy", contentPolicy)
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Referrer-Policy", "no-referrer")
	head.Set("Cache-Control", "no-store")
	_, name := path.Split(r.URL.Path)
	if f := h.allow(name, r); f != nil {
		if f.code == http.StatusMethodNotAllowed {
			head.Set("Allow", "GET, HEAD")
		}
		httpjson.Write(w, f.code, f, " ")
		return
	}
	var doc any
	var f *fault
	switch name {
	case "":
		asked, _, _ := strings.Cut(r.RequestURI, "?")
		if !strings.HasSuffix(asked, "/") { // the page's own links need the slash
			head.Set("Location", "./"+path.Base(asked)+"/")
			w.WriteHeader(http.StatusTemporaryRedirect)
			return
		}
		name = "index.html"
		fallthrough
	case "app.js", "chart.js", "inspect.js", "app.css":
		http.ServeFileFS(w, asPage(r), page, "page/"+name)
		return
	case "stats":
		doc = h.stats()
	case "config":
		doc = h.config()
	case "peek":
		doc, f = h.peek(r)
	case "inspect":
		doc, f = h.inspect(r)
	default:
		f = &fault{http.StatusNotFound, "there is no " + name + " here", "ask for stats, config, peek or inspect; the page itself is at the path that ends in a slash"}
	}
	if f != nil {
		httpjson.Write(w, f.code, f, " ")
		return
	}
	httpjson.Write(w, http.StatusOK, doc, " ")
}

func (h *handler) allow(name string, r *http.Request) *fault {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return nil
	case http.MethodPost:
		if name != "inspect" {
			break
		}
		// Nobody else's page may make a visitor's browser ask the database.
		if err := h.origin.Check(r); err != nil {
			return &fault{http.StatusForbidden, "asking the loader: " + err.Error(), "use the page's own button, or a client that sends no Origin header"}
		}
		return nil
	}
	return &fault{http.StatusMethodNotAllowed, r.Method + " is not for " + path.Base(r.URL.Path), "use GET; only inspect takes POST, which asks the loader too"}
}

// asPage keeps http.ServeFileFS from answering by what the caller's path ends in.
func asPage(r *http.Request) *http.Request {
	own := r.Clone(r.Context())
	own.URL.Path = "/"
	return own
}

// pageStats is what stats serves.
type pageStats struct {
	NodeReport
	Ready bool                `json:"ready"`
	Top   map[string][]TopKey `json:"top"`
}

// topShown is how many keys of each module the page lists.
const topShown = 10

func (h *handler) stats() *pageStats {
	s := &pageStats{NodeReport: h.c.nodeReport(), Top: map[string][]TopKey{}}
	select {
	case <-h.c.ready:
		s.Ready = !h.c.closed.Load()
	default:
	}
	for i := range s.Modules {
		if name := s.Modules[i].Name; s.Top[name] == nil {
			s.Top[name] = h.c.TopKeys(name, topShown)
		}
	}
	return s
}

// module finds the module that a request names, by default its newest version.
func (h *handler) module(r *http.Request) (*core, *fault) {
	name, version := r.URL.Query().Get("module"), r.URL.Query().Get("version")
	var found *core
	for _, m := range h.c.named(name) {
		if version == "" && (found == nil || m.policy.version > found.policy.version) || version == itoa(m.policy.version) {
			found = m
		}
	}
	if found == nil {
		return nil, &fault{http.StatusNotFound, "module " + strings.TrimSpace(name+" "+version) + " is not declared on this node", "config lists the modules that are"}
	}
	return found, nil
}

// key is the key that a request names, in its one spelling.
func (m *core) key(id string) (slot, any, *fault) {
	if id == "" {
		return slot{}, nil, &fault{http.StatusBadRequest, "no key is given", "add key=…, the part of the Redis key behind the module and its version"}
	}
	typed, spelled, err := m.parse(id)
	switch {
	case errors.Is(err, errOwnSpelling):
		spelled = id
	case err != nil:
		return slot{}, nil, &fault{http.StatusBadRequest, "key " + id + " is not one of module " + m.policy.name + ": " + err.Error(), "give the key as it stands in Redis behind the module and its version"}
	}
	if len(m.head)+len(spelled) > maxName {
		return slot{}, nil, &fault{http.StatusBadRequest, errNameTooLong.Error(), "look the key up in Redis"}
	}
	k := m.rowtideKey(spelled)
	return m.c.slot(k), typed, nil
}
