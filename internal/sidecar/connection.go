package sidecar

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// redisLevel is the version of Redis whose replies these are; clients that look
// at versions take it for what they may expect.
const redisLevel = "7.0.0"

const (
	errSyntax     = "ERR syntax error"
	errNotInteger = "ERR value is not an integer or out of range"
	errWrongPass  = "WRONGPASS invalid username-password pair or user is disabled."
)

func ping(c *session, args [][]byte) {
	switch len(args) {
	case 1:
		c.status("PONG")
	case 2:
		c.bulk(args[1])
	default:
		c.wrongArity("ping")
	}
}

func echo(c *session, args [][]byte) { c.bulk(args[1]) }

func quit(c *session, _ [][]byte) {
	c.status("OK")
	c.quit = true
}

func reset(c *session, _ [][]byte) {
	c.resp3 = false
	c.authenticated = c.s.cfg.Password == ""
	c.rename("")
	c.status("RESET")
}

func selectDB(c *session, args [][]byte) {
	n, err := strconv.ParseInt(string(args[1]), 10, 32)
	switch {
	case err != nil:
		c.fail(errNotInteger)
	case n != 0:
		c.fail("ERR DB index is out of range")
	default:
		c.status("OK")
	}
}

func auth(c *session, args [][]byte) {
	switch {
	case len(args) > 3:
		c.fail(errSyntax)
	case len(args) == 2 && c.s.cfg.Password == "":
		c.fail("ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?")
	case !c.login(args[1:]):
		c.fail(errWrongPass)
	default:
		c.status("OK")
	}
}

// login takes a password, or a user (there is only "default") and a password.
func (c *session) login(words [][]byte) bool {
	user := len(words) == 1 || string(words[0]) == "default"
	// Without a password anybody is the default user already, as with Redis.
	if ok := c.s.cfg.Password == "" || c.s.knows(words[len(words)-1]); !ok || !user {
		return false
	}
	c.authenticated = true
	return true
}

func hello(c *session, args [][]byte) {
	proto, name := 0, ""
	if len(args) > 1 {
		n, err := strconv.ParseInt(string(args[1]), 10, 64)
		switch {
		case err != nil:
			c.fail("ERR Protocol version is not an integer or out of range")
			return
		case n != 2 && n != 3:
			c.fail("NOPROTO unsupported protocol version")
			return
		}
		proto = int(n)
	}
	var login [][]byte
	for i := 2; i < len(args); i++ {
		switch option := lower(args[i]); {
		case option == "auth" && i+2 < len(args):
			login = args[i+1 : i+3]
			i += 2
		case option == "setname" && i+1 < len(args):
			if name = string(args[i+1]); !nameable(name) {
				c.fail(errName)
				return
			}
			i++
		default:
			c.fail(fmt.Sprintf("ERR Syntax error in HELLO option '%s'", args[i]))
			return
		}
	}
	if login != nil && !c.login(login) {
		c.fail(errWrongPass)
		return
	}
	if !c.authenticated {
		c.fail("NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time")
		return
	}
	if proto != 0 {
		c.resp3 = proto == 3
	}
	if name != "" {
		c.rename(name)
	}
	c.pairs(7)
	c.text("server")
	c.text("redis")
	c.text("version")
	c.text(redisLevel)
	c.text("proto")
	c.integer(c.protocol())
	c.text("id")
	c.integer(c.id)
	c.text("mode")
	c.text("standalone")
	c.text("role")
	c.text("master")
	c.text("modules")
	c.array(0)
}

func (c *session) protocol() int64 {
	if c.resp3 {
		return 3
	}
	return 2
}

const errName = "ERR Client names cannot contain spaces, newlines or special characters."

// maxName keeps names from filling CLIENT LIST.
const maxName = 1 << 10

// nameable is Redis's rule, and a bound.
func nameable(name string) bool {
	return len(name) <= maxName && !strings.ContainsFunc(name, func(r rune) bool { return r < '!' || r > '~' })
}

func (c *session) rename(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.name = name
}

func client(c *session, args [][]byte) {
	sub := lower(args[1])
	n, known := map[string]int{"id": 2, "getname": 2, "setname": 3, "setinfo": 4, "info": 2, "list": -2}[sub]
	if !known {
		c.fail(fmt.Sprintf("ERR unknown subcommand '%.128s'. Try CLIENT HELP.", args[1]))
		return
	}
	if n > 0 && len(args) != n {
		c.wrongArity("client|" + sub)
		return
	}
	switch sub {
	case "id":
		c.integer(c.id)
	case "getname":
		if c.name == "" { // only this goroutine writes it
			c.null()
		} else {
			c.text(c.name)
		}
	case "setname":
		if !nameable(string(args[2])) {
			c.fail(errName)
			return
		}
		c.rename(string(args[2]))
		c.status("OK")
	case "setinfo":
		// What library it is makes no difference here.
		if option := lower(args[2]); option != "lib-name" && option != "lib-ver" {
			c.fail("ERR Unrecognized option '" + string(args[2]) + "'")
			return
		}
		c.status("OK")
	case "info":
		c.verbatim(c.line(time.Now()))
	case "list":
		c.verbatim(c.s.list())
	}
}

// line is the session as CLIENT LIST shows it.
func (c *session) line(now time.Time) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("id=%d addr=%s laddr=%s name=%s age=%d db=0 cmd=%s user=default\n",
		c.id, c.conn.RemoteAddr(), c.conn.LocalAddr(), c.name, int(now.Sub(c.at).Seconds()), c.last)
}

func (s *Server) list() string {
	s.mu.Lock()
	all := make([]*session, 0, len(s.sessions))
	for c := range s.sessions {
		all = append(all, c)
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b *session) int { return int(a.id - b.id) })
	now := time.Now()
	var b strings.Builder
	for _, c := range all {
		b.WriteString(c.line(now))
	}
	return b.String()
}
