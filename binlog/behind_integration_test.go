//go:build integration

package binlog_test

import (
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/internal/testenv"
)

// What a source says of its backlog has to be true by its server's log, whose times
// MariaDB rounds down to seconds.
func TestSource_SaysHowFarBehindItIs(t *testing.T) {
	for _, flavor := range []string{testenv.FlavorMariaDB, testenv.FlavorMySQL} {
		t.Run(flavor, func(t *testing.T) {
			if flavor == testenv.FlavorMySQL {
				testenv.MySQL(t) // skips where there is none
			}
			server := startPrivate(t, flavor)
			d := openDatabase(t, server.Target())
			table := d.eventTable()
			cfg := d.config()
			cfg.StartAt = d.head()
			d.exec("INSERT INTO event VALUES (1,10)")
			<-time.After(4 * time.Second) // a backlog is made of time
			rec, reached, open := newRecorder(), make(chan struct{}), make(chan struct{})
			rec.hook = func(tx *rowtide.Tx) error {
				if len(tx.Changes) > 0 && reached != nil {
					close(reached)
					reached = nil
					<-open
				}
				return nil
			}
			begun := reached
			s := follow(t, cfg, &memory{}, rec, table)
			within := func(when string, least, most time.Duration) {
				t.Helper()
				for end := time.Now().Add(patience); ; <-time.After(10 * time.Millisecond) {
					got := s.src.Behind()
					if got >= least && got <= most {
						return
					}
					if time.Now().After(end) {
						t.Fatalf("%s: %s behind, want %s to %s", when, got, least, most)
					}
				}
			}
			select {
			case <-begun:
			case <-time.After(patience):
				t.Fatal("the row does not come")
			}
			within("a row of four seconds ago", 4*time.Second, patience)
			close(open)
			within("all is read", 0, 0)
			d.exec("INSERT INTO event VALUES (2,20)")
			s.want("+1 10", "+2 20")
			within("a row of now", 0, 0)
			if err := server.Kill(); err != nil {
				t.Fatal(err)
			}
			within("no server", time.Second, patience)
			if err := server.Restart(testContext(t)); err != nil {
				t.Fatal(err)
			}
			within("it is back", 0, 0)
		})
	}
}
