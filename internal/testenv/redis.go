package testenv

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// RedisServer is a private Redis server.
type RedisServer struct {
	*Server
	// Password is the default user's, as given in Options.
	Password string
}

// StartRedis starts a private Redis server. Unless AppendOnly or Durable is
// set it forgets its data when it stops. It returns when the server answers
// PING, which a server that is still loading its file does not.
func StartRedis(ctx context.Context, o Options) (*RedisServer, error) {
	bin := o.Bin
	if bin == "" {
		var ok bool
		if bin, ok = find("redis-server"); !ok {
			return nil, notInstalled("Redis")
		}
	}
	s, err := launch(ctx, "redis", o, func(_ context.Context, s *Server) error {
		if err := os.MkdirAll(s.dataDir(), 0o755); err != nil {
			return err
		}
		s.spec.as = unprivileged(s.dataDir(), bin)
		conf, err := redisConf(o, s)
		if err != nil {
			return err
		}
		path := filepath.Join(s.Dir, "redis.conf")
		if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
			return err
		}
		s.spec.argv = append([]string{bin, path}, o.Flags...)
		s.spec.ready = func(ctx context.Context) error { return pingRedis(ctx, s.Addr, o.Password) }
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &RedisServer{Server: s, Password: o.Password}, nil
}

func redisConf(o Options, s *Server) (string, error) {
	var b strings.Builder
	line := func(words ...string) { b.WriteString(strings.Join(words, " ") + "\n") }
	line("bind", "127.0.0.1")
	line("port", strconv.Itoa(s.Port()))
	line("dir", strconv.Quote(s.dataDir()))
	line("daemonize", "no")
	line("save", `""`)
	if o.AppendOnly || o.Durable {
		line("appendonly", "yes")
	}
	if o.Durable {
		line("appendfsync", "always")
	}
	if o.Password != "" {
		line("requirepass", strconv.Quote(o.Password))
		line("masterauth", strconv.Quote(o.Password))
	}
	for _, user := range o.ACL {
		line("user", user)
	}
	if o.ReplicaOf != "" {
		host, port, err := net.SplitHostPort(o.ReplicaOf)
		if err != nil {
			return "", fmt.Errorf("replica of %q: %w", o.ReplicaOf, err)
		}
		line("replicaof", host, port)
	}
	return b.String(), nil
}

func pingRedis(ctx context.Context, addr, password string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := dial(ctx, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	if password != "" {
		if _, err := askRedis(conn, r, "AUTH", password); err != nil {
			return err
		}
	}
	_, err = askRedis(conn, r, "PING")
	// Where an ACL has locked the default user out, this refusal is the
	// answer of a server that serves.
	var refused redisError
	if errors.As(err, &refused) && (refused.is("NOAUTH") || refused.is("NOPERM")) {
		return nil
	}
	return err
}

// Do sends one command as the default user on a connection of its own and
// returns its answer: a simple or bulk string, or a number.
func (s *RedisServer) Do(ctx context.Context, words ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := dial(ctx, s.Addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	if s.Password != "" {
		if _, err := askRedis(conn, r, "AUTH", s.Password); err != nil {
			return "", err
		}
	}
	answer, err := askRedis(conn, r, words...)
	if err != nil {
		return "", fmt.Errorf("%s at %s: %w", strings.Join(words, " "), s.Addr, err)
	}
	return answer, nil
}

// redisError is an error reply.
type redisError string

func (e redisError) Error() string { return "redis: " + string(e) }

func (e redisError) is(code string) bool { return strings.HasPrefix(string(e), code+" ") }

// askRedis sends one command and reads its answer.
func askRedis(conn net.Conn, r *bufio.Reader, words ...string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(w), w)
	}
	if _, err := conn.Write([]byte(b.String())); err != nil {
		return "", err
	}
	reply, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	kind, rest := reply[0], strings.TrimSpace(reply[1:])
	switch kind {
	case '-':
		return "", redisError(rest)
	case '+', ':':
		return rest, nil
	case '$':
		n, err := strconv.Atoi(rest)
		if err != nil || n < 0 {
			return "", err
		}
		body := make([]byte, n+len("\r\n"))
		_, err = io.ReadFull(r, body)
		return string(body[:n]), err
	}
	return "", fmt.Errorf("redis: unexpected reply %q", reply)
}
