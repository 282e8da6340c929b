//go:build integration

package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/rowtide/rowtide/internal/testenv"
)

// A commit in the database is what the next read through the sidecar gives, over
// Redis's protocol and over HTTP. The sidecar knows the modules from the daemon
// alone.
func TestNode_ACommitIsSeenThroughIt(t *testing.T) {
	target := testenv.MariaDB(t)
	db := newDatabase(t, target, "node")
	db.exec("CREATE TABLE " + db.schema + ".thing (id INT PRIMARY KEY, name VARCHAR(20))")
	g := goodConfig(t, target, db.schema)
	daemon := testenv.FreeAddr(t)
	d := startProcess(t, []string{"ROWTIDE_HTTP_LISTEN=" + daemon}, "run", "-c", g.write(t))
	eventually(t, "the daemon is ready", 30*time.Second, func() (bool, string) {
		code, body := get(t, "http://"+daemon+"/readyz")
		return code == http.StatusOK, body + d.Log.String()
	})
	addr, web := testenv.FreeAddr(t), testenv.FreeAddr(t)
	own := writeConfig(t, "redis: %s\nkafka: %s\nnode: {listen: '%s', http: '%s'}\n", g.redis, g.kafka, addr, web)
	n := startProcess(t, nil, "node", "-c", own)
	eventually(t, "the sidecar knows the module", 30*time.Second, func() (bool, string) {
		code, body := get(t, "http://"+web+"/readyz")
		return code == http.StatusOK && strings.Contains(body, `"modules":["thing"]`), body + n.Log.String()
	})

	c := redis.NewClient(&redis.Options{Addr: addr})
	defer c.Close()
	sees := func(id int, want string) {
		t.Helper()
		eventually(t, "the sidecar has "+want, 10*time.Second, func() (bool, string) {
			got, err := c.Get(t.Context(), fmt.Sprint("thing:", id)).Result()
			code, body := get(t, fmt.Sprintf("http://%s/v1/thing/%d", web, id))
			if want == "" {
				return errors.Is(err, redis.Nil) && code == http.StatusNotFound, fmt.Sprint(got, err, body)
			}
			return got == want && code == http.StatusOK && body == want, fmt.Sprint(got, err, body)
		})
	}
	sees(1, "")
	db.exec("INSERT INTO " + db.schema + ".thing VALUES (1, 'a')")
	sees(1, `{"id":1,"name":"a"}`)
	began := time.Now()
	for i := range 20 {
		name := fmt.Sprint("b", i)
		db.exec("UPDATE "+db.schema+".thing SET name=? WHERE id=1", name)
		sees(1, `{"id":1,"name":"`+name+`"}`)
	}
	t.Logf("from a commit to its sight by polling: %v", time.Since(began)/20)
	db.exec("DELETE FROM " + db.schema + ".thing WHERE id=1")
	sees(1, "")

	for path, want := range map[string]string{"/metrics": "rowtide_node_commands_total", "/localsync/": "<html", "/healthz": "ok"} {
		if code, body := get(t, "http://"+web+path); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d %.200s", path, code, body)
		}
	}
	if code := n.Terminate(t); code != exitClean {
		t.Errorf("exit code %d after SIGTERM: %s", code, n.Log)
	}
}

func TestNode_BadInputNamesTheThingAndTheRemedy(t *testing.T) {
	s := newSidecar(t, "")
	taken := testenv.FreeAddr(t)
	ln, err := net.Listen("tcp", taken)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, tt := range []struct {
		env, want string
		code      int
	}{
		{"ROWTIDE_NODE_LISTEN=0.0.0.0:6390", `node.listen "0.0.0.0:6390" is not loopback`, exitConfig},
		{"ROWTIDE_NODE_MAX_KEYS=many", "ROWTIDE_NODE_MAX_KEYS: ", exitConfig},
		{"ROWTIDE_NODE_PASSWORD_FILE=/nonexistent", "node.password_file", exitConfig},
		{"ROWTIDE_NODE_LISTEN=" + taken, "node.listen " + taken, exitRuntime},
		{"ROWTIDE_NODE_HTTP=" + taken, "node.http " + taken, exitRuntime},
		{"ROWTIDE_NODE_SOCKET=" + s.path, "is no socket", exitRuntime},
		{"ROWTIDE_NODE_SOCKET=" + s.socket, "another process listens there", exitRuntime},
		{"ROWTIDE_REDIS_ADDRS=" + testenv.FreeAddr(t), "redis.addrs", exitRuntime},
		{"ROWTIDE_KAFKA_BROKERS=" + testenv.FreeAddr(t), "reach kafka at", exitRuntime},
		{"ROWTIDE_KAFKA_TOPIC=" + testenv.UniqueName(t, "none"), "the rowtide daemon creates it", exitRuntime},
	} {
		free := []string{"ROWTIDE_NODE_LISTEN=" + testenv.FreeAddr(t), "ROWTIDE_NODE_HTTP=" + testenv.FreeAddr(t), "ROWTIDE_NODE_SOCKET=" + s.socket + "2"}
		res := rowtideCommand(t, append(free, tt.env), "node", "-c", s.path)
		if res.code != tt.code || !strings.Contains(res.stderr, tt.want) {
			t.Errorf("%s: exit code %d, %q; want %d with %q", tt.env, res.code, res.stderr, tt.code, tt.want)
		}
	}
	// A socket that a killed process left behind is in nobody's way.
	s.p.Kill()
	p := startProcess(t, []string{"ROWTIDE_NODE_LISTEN=off"}, "node", "-c", s.path)
	eventually(t, "the socket is served again", 30*time.Second, func() (bool, string) {
		conn, err := net.Dial("unix", s.socket)
		if err == nil {
			conn.Close()
		}
		return err == nil, fmt.Sprint(err, p.Log)
	})
	if code := p.Terminate(t); code != exitClean {
		t.Errorf("exit code %d: %s", code, p.Log)
	}
}
