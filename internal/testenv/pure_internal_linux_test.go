package testenv

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestParseGreeting_TellsVersionFromRefusal(t *testing.T) {
	for _, tt := range []struct {
		name, body, want string
		wantErr          bool
	}{
		{name: "mysql", body: "\x0a9.7.4\x00rest", want: "9.7.4"},
		{name: "mariadb drops its replication prefix", body: "\x0a5.5.5-10.11.19-MariaDB\x00rest", want: "10.11.19-MariaDB"},
		{name: "too many connections", body: "\xff\x10\x04Too many connections", wantErr: true},
		{name: "endless version", body: "\x0a9.7.4", wantErr: true},
		{name: "empty", body: "", wantErr: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseGreeting([]byte(tt.body))
			if got != tt.want || (err != nil) != tt.wantErr {
				t.Fatalf("version=%q err=%v, want %q, error %t", got, err, tt.want, tt.wantErr)
			}
		})
	}
}

func TestMetadataRequest_IsFramedByItsLength(t *testing.T) {
	b := metadataRequest()
	if got, want := binary.BigEndian.Uint32(b), uint32(len(b)-4); got != want {
		t.Fatalf("length=%d, want %d", got, want)
	}
}

func TestCheckMetadata_WantsABroker(t *testing.T) {
	answer := func(brokers uint32) []byte {
		return binary.BigEndian.AppendUint32(make([]byte, 8), brokers)
	}
	if err := checkMetadata(answer(1)); err != nil {
		t.Errorf("one broker: %v", err)
	}
	if err := checkMetadata(answer(0)); err == nil {
		t.Error("no broker: no error")
	}
	if err := checkMetadata([]byte{0, 0}); err == nil {
		t.Error("truncated: no error")
	}
}

func TestRedisConf_SaysWhatOptionsAsk(t *testing.T) {
	s := &Server{Addr: "127.0.0.1:15001", Dir: "/tmp/with space"}
	got, err := redisConf(Options{
		Durable: true, Password: "p w", ACL: []string{"node on >x ~a:* +get"}, ReplicaOf: "127.0.0.1:15002",
	}, s)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"port 15001\n", "dir \"/tmp/with space/data\"\n", "appendonly yes\n", "appendfsync always\n",
		"requirepass \"p w\"\n", "user node on >x ~a:* +get\n", "replicaof 127.0.0.1 15002\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no line %q in:\n%s", want, got)
		}
	}
	if _, err := redisConf(Options{ReplicaOf: "nonsense"}, s); err == nil {
		t.Error("replica of nonsense: no error")
	}
}

func TestCopyTree_KeepsBytesAndLeavesHoles(t *testing.T) {
	src, dst := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	const size = 8 << 20
	content := make([]byte, size)
	copy(content[size/2:], "in the middle")
	files := map[string][]byte{
		"sparse":      content,
		"sub/odd":     bytes.Repeat([]byte("x"), 70001),
		"sub/empty":   {},
		"zeros-only":  make([]byte, 200000),
		"ends-in-one": append(make([]byte, 100000), 1),
	}
	for name, b := range files {
		path := filepath.Join(src, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := copyTree(dst, src); err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(dst, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs: %d bytes, want %d", name, len(got), len(want))
		}
	}
	info, err := os.Stat(filepath.Join(dst, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	if used := info.Sys().(*syscall.Stat_t).Blocks * 512; used >= size/2 {
		t.Errorf("sparse copy takes %d bytes on disk, want far below %d", used, size)
	}
}

func TestFromTemplate_BuildsOnceAndNeverKeepsAHalfBuiltOne(t *testing.T) {
	t.Setenv("ROWTIDE_CACHE", t.TempDir())
	builds := 0
	build := func(fail bool) func(string) error {
		return func(dir string) error {
			builds++
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			if fail {
				return errors.New("power cut")
			}
			return os.WriteFile(filepath.Join(dir, "f"), []byte("made"), 0o644)
		}
	}
	if err := fromTemplate(filepath.Join(t.TempDir(), "a"), "x", "v1", build(true)); err == nil {
		t.Fatal("failing build: no error")
	}
	for range 2 {
		dst := filepath.Join(t.TempDir(), "b")
		if err := fromTemplate(dst, "x", "v1", build(false)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(dst, "f")); err != nil || string(got) != "made" {
			t.Fatalf("f=%q err=%v", got, err)
		}
	}
	if got, want := builds, 2; got != want {
		t.Errorf("builds=%d, want %d: one failed, one kept", got, want)
	}
}

func TestOthersMayEnter_SeesAClosedFolder(t *testing.T) {
	dir, err := TempDir("enter")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if !othersMayEnter(filepath.Join(dir, "data")) {
		t.Error("TempDir's folder is closed to others")
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if othersMayEnter(filepath.Join(dir, "data")) {
		t.Error("a 0700 folder counts as open")
	}
}
