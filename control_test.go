package rowtide_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rowtide/rowtide"
)

// topicVector is a record of a topic whose records have keys.
type topicVector struct {
	Name  string `json:"name"`
	Key   string `json:"key"`
	Value string `json:"value"`
}

type namedControl struct {
	name    string
	control rowtide.ModuleControl
}

func goldenControls(t testing.TB) []namedControl {
	return []namedControl{
		{"nothing set", rowtide.ModuleControl{Name: "event"}},
		{"everything set", rowtide.ModuleControl{
			Name: "event_page", Version: 65535, Generation: 1<<32 - 1, Since: version(t, 4095, 4, 157), Epoch: 4095,
			Settings: rowtide.ModuleSettings{
				TTL: 24 * time.Hour, Refresh: time.Minute, EmptyTTL: 30 * time.Second, EmptyRefresh: 10 * time.Second,
				OnError: "optional", MaxStale: 1500 * time.Millisecond, Push: true,
			},
		}},
		{"a key space that is being filled", rowtide.ModuleControl{
			Name: "event", Version: 3, Previous: 2, Settings: rowtide.ModuleSettings{Codec: "json"},
		}},
	}
}

func TestControl_PublishedVectorsHold(t *testing.T) {
	var out []topicVector
	for _, n := range goldenControls(t) {
		out = append(out, topicVector{n.name, n.control.Name, string(n.control.AppendControl(nil))})
	}
	holdVectors(t, "controls.json", out)
}

func TestControl_PublishedVectorsDecode(t *testing.T) {
	var vectors []topicVector
	readVectors(t, "controls.json", &vectors)
	for i, n := range goldenControls(t) {
		got, err := rowtide.DecodeControl([]byte(vectors[i].Value))
		if err != nil || got != n.control {
			t.Errorf("%s\n got %+v, %v\nwant %+v", n.name, got, err, n.control)
		}
	}
}

func TestControl_RoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := func(label string) time.Duration {
			return time.Duration(rapid.Int64Range(0, 1<<40).Draw(t, label)) * time.Millisecond
		}
		want := rowtide.ModuleControl{
			Name: rapid.StringMatching(`[a-z_é]{1,9}`).Draw(t, "name"), Version: rapid.Uint16().Draw(t, "version"),
			Generation: rapid.Uint32().Draw(t, "generation"), Since: rowtide.Version(rapid.Uint64().Draw(t, "since")), Epoch: rapid.Uint32().Draw(t, "epoch"),
			Settings: rowtide.ModuleSettings{
				TTL: d("ttl"), Refresh: d("refresh"), EmptyTTL: d("empty ttl"), EmptyRefresh: d("empty refresh"),
				OnError: rapid.SampledFrom([]string{"", "keep", "optional"}).Draw(t, "on error"), MaxStale: d("max stale"), Push: rapid.Bool().Draw(t, "push"),
			},
		}
		if got, err := rowtide.DecodeControl(want.AppendControl(nil)); err != nil || got != want {
			t.Errorf("got %+v, %v\nwant %+v", got, err, want)
		}
	})
}

func TestDecodeControl_Errors(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     error
	}{
		{"nothing", "", rowtide.ErrCorrupt},
		{"not an object", `[1]`, rowtide.ErrCorrupt},
		{"cut short", `{"format":1,"name":"a"`, rowtide.ErrCorrupt},
		{"no format", `{"name":"a"}`, rowtide.ErrCorrupt},
		{"no name", `{"format":1}`, rowtide.ErrCorrupt},
		{"another kind of field", `{"format":1,"name":"a","generation":"x"}`, rowtide.ErrCorrupt},
		{"next format", `{"format":2,"name":7}`, rowtide.ErrNewerFormat},
		{"unknown field", `{"format":1,"name":"a","colour":"blue"}`, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := rowtide.DecodeControl([]byte(tt.in)); !errors.Is(err, tt.want) {
				t.Errorf("err=%v, want %v", err, tt.want)
			}
		})
	}
}

type namedLetter struct {
	name   string
	letter rowtide.DeadLetter
}

func goldenLetters(t testing.TB) []namedLetter {
	full := rowtide.DeadLetter{
		Position: rowtide.Position{File: "binlog.000004", Pos: 157, GTID: "3e11fa47-71ca-11e1-9e33-c80aa9429562:23"},
		Version:  version(t, 1, 4, 157), Module: "event", Table: "shop.event", Op: rowtide.OpUpdate, Reason: `value of 9000000 bytes is above max_value "8MiB"`,
		Key: "42", Row: json.RawMessage(`{"id":42,"title":"Été ☀"}`), At: goldenBuilt,
	}
	bare := rowtide.DeadLetter{Version: version(t, 1, 4, 157), Module: "event", Table: "shop.event", Reason: "column data is cut short", At: goldenBuilt}
	return []namedLetter{{"everything known", full}, {"row could not be read", bare}, {"row left out", full.WithoutRow()}}
}

func TestDeadLetter_PublishedVectorsHold(t *testing.T) {
	var out []topicVector
	for _, n := range goldenLetters(t) {
		out = append(out, topicVector{n.name, n.letter.ID(), string(n.letter.AppendDeadLetter(nil))})
	}
	holdVectors(t, "deadletters.json", out)
}

func TestDeadLetter_PublishedVectorsDecode(t *testing.T) {
	var vectors []topicVector
	readVectors(t, "deadletters.json", &vectors)
	for i, n := range goldenLetters(t) {
		got, err := rowtide.DecodeDeadLetter([]byte(vectors[i].Value))
		if err != nil {
			t.Fatal(err)
		}
		w := n.letter
		if got.ID() != vectors[i].Key || got.Position != w.Position || got.Version != w.Version || got.Module != w.Module || got.Table != w.Table ||
			got.Op != w.Op || got.Reason != w.Reason || got.Key != w.Key || string(got.Row) != string(w.Row) || !got.At.Equal(w.At) {
			t.Errorf("%s\n got %+v\nwant %+v", n.name, got, w)
		}
	}
}

// A replay must set the same letter aside again, another change another one.
func TestDeadLetter_IDIsOfTheChange(t *testing.T) {
	one := goldenLetters(t)[0].letter
	again := one
	again.At, again.Reason = again.At.Add(time.Hour), "said otherwise"
	if again.ID() != one.ID() || one.WithoutRow().ID() != one.ID() {
		t.Error("the same change has another id")
	}
	keyless := one
	keyless.Key = ""
	if keyless.WithoutRow().ID() != keyless.ID() {
		t.Error("a letter has another id without its row")
	}
	for name, change := range map[string]func(*rowtide.DeadLetter){
		"version": func(l *rowtide.DeadLetter) { l.Version++ },
		"module":  func(l *rowtide.DeadLetter) { l.Module = "x" },
		"key":     func(l *rowtide.DeadLetter) { l.Key = "43" },
		"op":      func(l *rowtide.DeadLetter) { l.Op = rowtide.OpDelete },
		"row":     func(l *rowtide.DeadLetter) { l.Key, l.Row = "", json.RawMessage(`{"id":43}`) },
	} {
		other := one
		if change(&other); other.ID() == one.ID() || other.ID() == keyless.ID() {
			t.Errorf("another %s has the same id", name)
		}
	}
}

func TestDeadLetter_RowThatIsNoJSONIsKeptAsText(t *testing.T) {
	l := rowtide.DeadLetter{Module: "event", Row: json.RawMessage("\x00not json"), At: goldenBuilt}
	got, err := rowtide.DecodeDeadLetter(l.AppendDeadLetter(nil))
	var text string
	if err != nil || json.Unmarshal(got.Row, &text) != nil || text != "\x00not json" {
		t.Errorf("row %s, %v", got.Row, err)
	}
}
