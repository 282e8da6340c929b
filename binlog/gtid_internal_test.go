package binlog

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-mysql-org/go-mysql/mysql"
	"pgregory.net/rapid"
)

// Ours is kept in runs and merged late; go-mysql's takes one id after another.
// Both must end as the same set, whatever the order and however often asked.
func TestGTIDSet_AgreesWithTheLibrary(t *testing.T) {
	for _, flavor := range []string{mysql.MySQLFlavor, mysql.MariaDBFlavor} {
		t.Run(flavor, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				first := ""
				if rapid.Bool().Draw(t, "start") {
					first = map[string]string{mysql.MySQLFlavor: uuid + ":1-3:7", mysql.MariaDBFlavor: "0-1-3"}[flavor]
				}
				ours, err := parseGTIDSet(flavor, first)
				if err != nil {
					t.Fatal(err)
				}
				want, err := mysql.ParseGTIDSet(flavor, first)
				if err != nil {
					t.Fatal(err)
				}
				seq := uint64(3)
				for range rapid.IntRange(0, 30).Draw(t, "steps") {
					var ids []string
					for range rapid.IntRange(1, 3).Draw(t, "joined") {
						seq++
						ids = append(ids, anyGTID(t, flavor, seq))
					}
					if err := ours.add(strings.Join(ids, ",")); err != nil {
						t.Fatal(err)
					}
					for _, id := range ids {
						if err := want.Update(id); err != nil {
							t.Fatal(err)
						}
					}
					if rapid.Bool().Draw(t, "read") && !sameSet(t, flavor, ours.String(), want) {
						t.Fatalf("%s, want %s", ours, want)
					}
				}
				if !sameSet(t, flavor, ours.String(), want) {
					t.Fatalf("%s, want %s", ours, want)
				}
			})
		})
	}
}

func anyGTID(t *rapid.T, flavor string, seq uint64) string {
	if flavor == mysql.MariaDBFlavor {
		return fmt.Sprintf("%d-%d-%d", rapid.IntRange(0, 2).Draw(t, "domain"), rapid.IntRange(1, 2).Draw(t, "server"), seq)
	}
	id := rapid.SampledFrom([]string{uuid, "1c133a9b-e5e2-11f1-9e5c-02fc00000002"}).Draw(t, "uuid")
	if rapid.IntRange(0, 3).Draw(t, "run") > 0 {
		return fmt.Sprintf("%s:%d", id, seq)
	}
	return fmt.Sprintf("%s:%d", id, rapid.Int64Range(1, 60).Draw(t, "gno"))
}

func sameSet(t *rapid.T, flavor, got string, want mysql.GTIDSet) bool {
	g, err := mysql.ParseGTIDSet(flavor, got)
	if err != nil {
		t.Fatal(err)
	}
	return g.Equal(want)
}

func TestGTIDSet_Refuses(t *testing.T) {
	for _, tt := range []struct{ flavor, in string }{
		{mysql.MySQLFlavor, "no-colon"}, {mysql.MySQLFlavor, uuid + ":x"}, {mysql.MariaDBFlavor, "rubbish"},
	} {
		g, err := parseGTIDSet(tt.flavor, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := g.add(tt.in); err == nil || !strings.Contains(err.Error(), "add GTID") {
			t.Errorf("%s: err=%v, want it refused by name", tt.in, err)
		}
	}
	if _, err := parseGTIDSet(mysql.MySQLFlavor, "rubbish"); err == nil || !strings.Contains(err.Error(), `parse GTID set "rubbish"`) {
		t.Errorf("err=%v, want it refused by name", err)
	}
}

// The tags of MySQL 8.3 make sets of their own.
func TestGTIDSet_Tags(t *testing.T) {
	g, err := parseGTIDSet(mysql.MySQLFlavor, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{uuid + ":1", uuid + ":blue:1", uuid + ":blue:2", uuid + ":2"} {
		if err := g.add(id); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := g.String(), uuid+":1-2:blue:1-2"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
