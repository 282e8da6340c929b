package main

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// status is what /status serves and `rowtide status` prints.
type status struct {
	Name         string   `json:"name"`
	Source       string   `json:"source"`
	Server       string   `json:"server"`
	Ready        bool     `json:"ready"`
	Problems     []string `json:"problems,omitempty"`
	Position     string   `json:"position"`
	GTIDSet      string   `json:"gtid_set,omitempty"`
	Epoch        uint32   `json:"epoch"`
	SavedAt      string   `json:"checkpoint_saved_at"`
	LagSeconds   float64  `json:"last_flush_lag_seconds"`
	Transactions int64    `json:"transactions"`
	Changes      int64    `json:"changes"`
	Written      int64    `json:"entries_written"`
	Superseded   int64    `json:"entries_superseded"`
	Modules      []string `json:"modules"`
	UpSeconds    float64  `json:"up_seconds"`
	// Web nodes that report; absent when Redis does not tell.
	Nodes         *int `json:"nodes,omitempty"`
	NodesDegraded *int `json:"nodes_degraded,omitempty"`
}

func (d *daemon) status() status {
	at, st := d.origin(), d.obs.State()
	s := status{
		Name: d.cfg.Name, Source: at.source, Server: at.server,
		Position: at.position, GTIDSet: at.gtids, Epoch: at.epoch, SavedAt: at.saved.Format(time.RFC3339),
		LagSeconds: float64(st.LagMicros.Load()) / 1e6, Transactions: st.Transactions.Load(), Changes: st.Changes.Load(),
		Written: st.Written.Load(), Superseded: st.Stale.Load(), UpSeconds: time.Since(d.started).Seconds(),
	}
	for _, m := range d.inForce() {
		s.Modules = append(s.Modules, m.Config().Name)
	}
	if !st.Connected.Load() {
		s.Problems = append(s.Problems, "the source is not connected; the log says why")
	}
	if st.RedisAway.Load() {
		s.Problems = append(s.Problems, "redis refuses writes; the source is held back")
	}
	if st.KafkaAway.Load() {
		s.Problems = append(s.Problems, "kafka refuses records; the source is held back")
	}
	if st.CheckpointAway.Load() {
		s.Problems = append(s.Problems, "the checkpoint cannot be saved; the source is held back")
	}
	s.Ready = len(s.Problems) == 0
	return s
}

func (d *daemon) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if s := d.status(); !s.Ready {
			writeText(w, http.StatusServiceUnavailable, s.Problems...)
			return
		}
		writeText(w, http.StatusOK, "ready")
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		s := d.status()
		d.fleet.show(r.Context(), &s)
		w.Header().Set("Content-Type", "application/json")
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		_ = enc.Encode(s) // the reader has gone away
	})
	mux.HandleFunc("GET /admin/nodes", d.admin(d.fleet.serve))
	mux.HandleFunc("POST /admin/reload", d.admin(func(w http.ResponseWriter, r *http.Request) {
		if d.reload == nil {
			writeText(w, http.StatusNotFound, "the modules come from no file, so there is nothing to reload; restart the daemon")
			return
		}
		what, err := d.reload.reload(r.Context())
		if err != nil {
			writeText(w, http.StatusUnprocessableEntity, "refused, the modules in force stay", err.Error())
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(what) // the reader has gone away
	}))
	if d.cfg.HTTP.Pprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// admin lets h be used only by who knows the token.
func (d *daemon) admin(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		given, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		switch {
		case d.cfg.HTTP.AdminToken == "":
			writeText(w, http.StatusForbidden, "admin routes are off: set http.admin_token")
		case !bearer || subtle.ConstantTimeCompare([]byte(given), []byte(d.cfg.HTTP.AdminToken)) != 1:
			writeText(w, http.StatusUnauthorized, "wrong token: send Authorization: Bearer and http.admin_token")
		default:
			h(w, r)
		}
	}
}

func writeText(w http.ResponseWriter, code int, lines ...string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	for _, l := range lines {
		_, _ = fmt.Fprintln(w, l) // the reader has gone away
	}
}

// server is an HTTP server that is already listening; the zero value serves
// nothing.
type server struct {
	srv *http.Server
	ln  net.Listener
}

// listen binds before it returns, so that a taken port is an error of the start; edit
// may change the server before it serves.
func listen(addr string, h http.Handler, edit ...func(*http.Server)) (*server, error) {
	if addr == "" {
		return &server{}, nil
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("http.listen %s: %w", addr, err)
	}
	s := &server{srv: &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}, ln: ln}
	for _, e := range edit {
		e(s.srv)
	}
	go func() { _ = s.srv.Serve(ln) }() // ends with Close, and has nothing else to say
	return s, nil
}

func (s *server) addr() string {
	if s.ln == nil {
		return "off"
	}
	return s.ln.Addr().String()
}

func (s *server) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s.drain(ctx)
}

// drain accepts nothing more and lets requests finish until ctx ends.
func (s *server) drain(ctx context.Context) {
	if s.srv == nil {
		return
	}
	if err := s.srv.Shutdown(ctx); errors.Is(err, context.DeadlineExceeded) {
		s.srv.Close() //nolint:errcheck,gosec // a client that reads for ever
	}
}

// freeListen is a loopback address with a port that was free a moment ago, for
// servers that are private to a demo.
func freeListen() string {
	var lc net.ListenConfig
	ln, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "127.0.0.1:0"
	}
	defer ln.Close()
	return ln.Addr().String()
}
