package sidecar

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// section is a part of INFO.
type section struct {
	name  string
	write func(s *Server, b *strings.Builder)
}

var sections = []section{
	{"Server", (*Server).infoServer},
	{"Clients", (*Server).infoClients},
	{"Stats", (*Server).infoStats},
	{"Rowtide", (*Server).infoRowtide},
	{"Modules", (*Server).infoModules},
}

func info(c *session, args [][]byte) {
	asked := map[string]bool{}
	for _, a := range args[1:] {
		asked[lower(a)] = true
	}
	all := len(asked) == 0 || asked["all"] || asked["default"] || asked["everything"]
	var b strings.Builder
	for _, sec := range sections {
		if !all && !asked[strings.ToLower(sec.name)] {
			continue
		}
		if b.Len() > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString("# " + sec.name + "\r\n")
		sec.write(c.s, &b)
	}
	c.verbatim(b.String())
}

func field(b *strings.Builder, name string, value any) { fmt.Fprintf(b, "%s:%v\r\n", name, value) }

func (s *Server) infoServer(b *strings.Builder) {
	field(b, "redis_version", redisLevel)
	field(b, "redis_mode", "standalone")
	field(b, "rowtide_version", s.version)
	field(b, "process_id", os.Getpid())
	field(b, "uptime_in_seconds", int(time.Since(s.started).Seconds()))
}

func (s *Server) infoClients(b *strings.Builder) {
	field(b, "connected_clients", s.Counts().Connections)
	field(b, "maxclients", s.cfg.MaxConnections)
}

func (s *Server) infoStats(b *strings.Builder) {
	n := s.Counts()
	field(b, "total_connections_received", n.Accepted)
	field(b, "rejected_connections", n.Refused)
	field(b, "total_commands_processed", n.Commands)
	field(b, "total_error_replies", n.Errors+n.Writes)
	field(b, "keyspace_hits", n.Hits)
	field(b, "keyspace_misses", n.Misses)
	field(b, "refused_writes", n.Writes)
	field(b, "malformed_requests", n.Malformed)
	field(b, "slow_readers", n.Slow)
	field(b, "idle_closed", n.Idle)
	field(b, "http_requests", n.Requests)
}

func (s *Server) infoRowtide(b *strings.Builder) {
	st := s.cache.Stats()
	degraded := 0
	if st.Bus.Silent > 0 {
		degraded = 1
	}
	field(b, "degraded", degraded)
	field(b, "bus_partitions", st.Bus.Partitions)
	field(b, "bus_silent_partitions", st.Bus.Silent)
	field(b, "bus_lag_ms", st.Bus.Lag.Milliseconds())
	field(b, "bus_gaps", st.Bus.Gaps)
	field(b, "bus_invalidations", st.Bus.Applied)
	field(b, "store_entries", st.Store.Entries)
	field(b, "store_bytes", st.Store.Bytes)
}

// infoModules has a line per module, in the form of Redis's own keyspace lines.
func (s *Server) infoModules(b *strings.Builder) {
	for _, m := range s.cache.Stats().Modules {
		field(b, fmt.Sprintf("%s.%d", m.Name, m.Version), fmt.Sprintf("local=%d,redis=%d,empty=%d,stale=%d,errors=%d",
			m.Local, m.Redis, m.Empty, m.Stale, m.Errors))
	}
}

func commandInfo(c *session, args [][]byte) {
	sub, names := "info", args[1:]
	if len(args) > 1 {
		sub, names = lower(args[1]), args[2:]
	}
	switch sub {
	case "count":
		if len(names) > 0 {
			c.wrongArity("command|count")
			return
		}
		c.integer(int64(len(c.s.commands)))
	case "list":
		c.texts(slices.Sorted(maps.Keys(c.s.commands))...)
	case "info":
		all := c.pick(names)
		c.array(len(all))
		for _, name := range all {
			c.describe(name)
		}
	case "docs":
		all := slices.DeleteFunc(c.pick(names), func(name string) bool { return c.s.commands[name] == nil })
		c.pairs(len(all))
		for _, name := range all {
			cmd := c.s.commands[name]
			c.text(name)
			c.pairs(3)
			for _, t := range []string{"summary", cmd.summary, "since", cmd.since, "group", cmd.group} {
				c.text(t)
			}
		}
	default:
		c.fail(fmt.Sprintf("ERR unknown subcommand '%.128s'. Try COMMAND HELP.", args[1]))
	}
}

// pick is the names asked for, or all.
func (c *session) pick(names [][]byte) []string {
	if len(names) == 0 {
		return slices.Sorted(maps.Keys(c.s.commands))
	}
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = lower(n)
	}
	return out
}

// describe writes the ten parts that Redis 7 tells of a command.
func (c *session) describe(name string) {
	cmd, ok := c.s.commands[name]
	if !ok {
		c.null()
		return
	}
	flags := []string{"fast"}
	if cmd.first > 0 {
		flags = []string{"readonly", "fast"}
	}
	if cmd.open {
		flags = append(flags, "no_auth")
	}
	c.array(10)
	c.text(name)
	c.integer(int64(cmd.arity))
	c.statuses(flags)
	c.integer(int64(cmd.first))
	c.integer(int64(cmd.last))
	c.integer(int64(cmd.step))
	category := "@" + cmd.group
	if cmd.group == "generic" {
		category = "@keyspace"
	}
	c.statuses([]string{category, "@fast"})
	c.array(0) // tips
	c.array(0) // key specifications
	c.array(0) // subcommands
}

func (r *reply) statuses(all []string) {
	r.set(len(all))
	for _, s := range all {
		r.status(s)
	}
}
