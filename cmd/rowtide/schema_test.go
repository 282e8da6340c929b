package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rowtide/rowtide/config"
)

func command(args ...string) (string, error) {
	var out bytes.Buffer
	root := newRoot()
	root.SetOut(&out)
	root.SetArgs(args)
	err := root.Execute()
	return out.String(), err
}

func TestSchema_PrintsOneDocumentPerFile(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want []byte
		key  string
	}{
		{[]string{"schema"}, config.Schema(), "modules"},
		{[]string{"schema", "--stock"}, config.StockSchema(), "db"},
	} {
		text, err := command(tt.args...)
		var doc struct {
			Properties map[string]any `json:"properties"`
		}
		if err != nil || text != string(tt.want) || json.Unmarshal([]byte(text), &doc) != nil || doc.Properties[tt.key] == nil {
			t.Errorf("rowtide %v: error %v, %d bytes without %s", tt.args, err, len(text), tt.key)
		}
	}
}

func TestCheck_OfflineNamesEveryFaultAndExitsWithTwo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rowtide.yaml")
	if err := os.WriteFile(path, []byte("name: a\nsource:\n  adr: x:1\nmodules: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := command("check", "--offline", "-c", path)
	if exitCode(err) != exitConfig {
		t.Fatalf("err=%v, exit code %d", err, exitCode(err))
	}
	for _, want := range []string{":3: source.adr is not a known key", ":2: source.user is missing", ":1: redis.addrs is missing", ":4: modules is empty"} {
		if !strings.Contains(err.Error(), "\n"+path+want) {
			t.Errorf("message lacks %s:\n%v", want, err)
		}
	}
}
