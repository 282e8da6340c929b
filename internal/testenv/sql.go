package testenv

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The two flavours of SQL server.
const (
	FlavorMariaDB = "mariadb"
	FlavorMySQL   = "mysql"
)

// probeTimeout bounds one attempt to connect: a server that has taken the
// connection but is not serving yet must not hold up the next attempt.
const probeTimeout = 2 * time.Second

// SQLTarget says how to reach a MySQL or MariaDB server, whoever started it.
type SQLTarget struct {
	// Flavor is FlavorMariaDB or FlavorMySQL.
	Flavor string
	// Addr is the server's host:port.
	Addr string
	// User and Password belong to an account that holds every privilege.
	User, Password string
}

// DSN returns the data source name for go-sql-driver/mysql. An empty db selects
// no schema.
func (t SQLTarget) DSN(db string) string {
	account := t.User
	if t.Password != "" {
		account += ":" + t.Password
	}
	return account + "@tcp(" + t.Addr + ")/" + db
}

// SQLServer is a private MySQL or MariaDB server with its binlog on: row
// format, full row images, full row metadata, GTIDs. Its first binlog file is
// binlog.000001, and nothing about its accounts is written there.
type SQLServer struct {
	*Server
	// Flavor is FlavorMariaDB or FlavorMySQL.
	Flavor string
	// User and Password belong to an account that holds every privilege.
	User, Password string
	// Version is what the server calls itself, for example "9.7.4".
	Version string
}

// Target returns how to reach the server.
func (s *SQLServer) Target() SQLTarget {
	return SQLTarget{Flavor: s.Flavor, Addr: s.Addr, User: s.User, Password: s.Password}
}

// DSN returns the data source name for go-sql-driver/mysql. An empty db selects
// no schema.
func (s *SQLServer) DSN(db string) string { return s.Target().DSN(db) }

// StartSQL starts whichever SQL server this machine has: MariaDB, else MySQL.
func StartSQL(ctx context.Context, o Options) (*SQLServer, error) {
	s, err := StartMariaDB(ctx, o)
	if !errors.Is(err, ErrNotInstalled) {
		return s, err
	}
	s, err = StartMySQL(ctx, o)
	if errors.Is(err, ErrNotInstalled) {
		return nil, notInstalled("a MySQL or MariaDB server")
	}
	return s, err
}

// sqlProgram is what MariaDB and MySQL do differently.
type sqlProgram struct {
	flavor string
	bin    string
	flags  []string
	// initialise makes a data folder with the accounts in the given one.
	initialise func(ctx context.Context, as credential, dir string) error
	// identity names what a data folder made by initialise depends on.
	identity string
}

func startSQL(ctx context.Context, p sqlProgram, o Options) (*SQLServer, error) {
	sql := &SQLServer{Flavor: p.flavor, User: "root"}
	server, err := launch(ctx, p.flavor, o, func(ctx context.Context, s *Server) error {
		s.spec.as = unprivileged(s.dataDir(), p.bin)
		if err := fillDataDir(ctx, p, s.dataDir()); err != nil {
			return err
		}
		s.spec.argv = append([]string{p.bin}, sqlArgs(p, o, s)...)
		s.spec.ready = func(ctx context.Context) error {
			version, err := greeting(ctx, s.Addr)
			// Once only: a Restart must not write what others may be reading.
			if sql.Version == "" {
				sql.Version = version
			}
			return err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	sql.Server = server
	return sql, nil
}

// fillDataDir makes a data folder unless there is one already.
func fillDataDir(ctx context.Context, p sqlProgram, dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "mysql")); err == nil {
		return nil
	}
	program, err := programIdentity(p.bin)
	if err != nil {
		return err
	}
	return fromTemplate(dir, p.flavor, program+" "+p.identity, func(tmp string) error {
		as := unprivileged(tmp, p.bin)
		if err := os.MkdirAll(tmp, 0o755); err != nil {
			return err
		}
		if err := as.own(tmp); err != nil {
			return err
		}
		return p.initialise(ctx, as, tmp)
	})
}

func sqlArgs(p sqlProgram, o Options, s *Server) []string {
	port := s.Port()
	args := []string{
		"--no-defaults",
		"--datadir=" + s.dataDir(),
		// Not $TMPDIR, which is ours and may be closed to the server's user.
		"--tmpdir=" + s.dataDir(),
		"--port=" + strconv.Itoa(port),
		"--bind-address=127.0.0.1",
		// Relative to the data folder: a socket's full path may not be longer
		// than 107 bytes, and a test's temporary folder often is.
		"--socket=sql.sock",
		"--pid-file=sql.pid",
		"--skip-name-resolve",
		// The port is unique on this machine, so it serves as the server id.
		"--server-id=" + strconv.Itoa(port),
		"--log-bin=binlog",
		"--binlog-format=ROW",
		"--binlog-row-image=FULL",
		"--binlog-row-metadata=FULL",
		"--character-set-server=utf8mb4",
		"--max-connections=300",
		// A test's database is a few thousand rows: 64 MiB hold it, and several
		// servers fit beside a JVM.
		"--innodb-buffer-pool-size=64M",
		"--performance-schema=OFF",
	}
	args = append(args, s.spec.as.sqlUser()...)
	args = append(args, p.flags...)
	if o.Durable {
		args = append(args, "--sync-binlog=1", "--innodb-flush-log-at-trx-commit=1")
	} else {
		// 2 hands each commit to the kernel: it survives the server's SIGKILL.
		args = append(args, "--sync-binlog=0", "--innodb-flush-log-at-trx-commit=2")
	}
	return append(args, o.Flags...)
}

// sqlUser is the word without which a database server refuses to run as root.
func (c credential) sqlUser() []string {
	if os.Geteuid() == 0 && !c.drop {
		return []string{"--user=root"}
	}
	return nil
}

// runTool runs a server's own set-up program to its end.
func runTool(ctx context.Context, as credential, bin string, args ...string) error {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	p, err := startProcess(cmd, as)
	if err != nil {
		return err
	}
	<-p.done
	if p.err != nil {
		return fmt.Errorf("%s: %w; it said:\n%s", filepath.Base(bin), p.err, out.String())
	}
	return nil
}

// greeting connects and reads what a MySQL server says first, which it does
// only once it serves. It returns the server's version.
func greeting(ctx context.Context, addr string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := dial(ctx, addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	head := make([]byte, 4) // a 3-byte little-endian length and a sequence number
	if _, err := io.ReadFull(conn, head); err != nil {
		return "", fmt.Errorf("read greeting: %w", err)
	}
	length := binary.LittleEndian.Uint32([]byte{head[0], head[1], head[2], 0})
	const longest = 4 << 10 // a greeting has about 100 bytes
	if length == 0 || length > longest {
		return "", fmt.Errorf("greeting of %d bytes", length)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(conn, body); err != nil {
		return "", fmt.Errorf("read greeting: %w", err)
	}
	return parseGreeting(body)
}

func parseGreeting(body []byte) (string, error) {
	const protocol = 10 // of every server since MySQL 3.21; 0xff is an error
	if len(body) == 0 || body[0] != protocol {
		return "", fmt.Errorf("the server refuses: %q", body)
	}
	version, _, ok := bytes.Cut(body[1:], []byte{0})
	if !ok {
		return "", fmt.Errorf("malformed greeting %q", body)
	}
	// MariaDB puts 5.5.5- before its version for the sake of old replicas.
	return strings.TrimPrefix(string(version), "5.5.5-"), nil
}

// dial connects with ctx's deadline on everything that follows.
func dial(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	return conn, nil
}
