//go:build integration

package binlog_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/rowtide/rowtide"
	"github.com/rowtide/rowtide/binlog"
	"github.com/rowtide/rowtide/internal/testenv"
)

// Semi-synchronous replication shows a transaction to its replicas before the
// server lets anybody read it. A rebuild that is triggered by the log must read
// what the log has shown.
func TestR4_RebuildSeesWhatSemiSyncStillHides(t *testing.T) {
	for _, s := range []struct {
		name  string
		start func(context.Context, testenv.Options) (*testenv.SQLServer, error)
		set   []string
	}{
		{"mariadb", testenv.StartMariaDB, []string{
			"SET GLOBAL rpl_semi_sync_master_timeout=1500", "SET GLOBAL rpl_semi_sync_master_wait_point=AFTER_SYNC",
			"SET GLOBAL rpl_semi_sync_master_wait_no_slave=ON", "SET GLOBAL rpl_semi_sync_master_enabled=ON",
		}},
		{"mysql", testenv.StartMySQL, []string{
			"INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'", "SET GLOBAL rpl_semi_sync_source_timeout=1500",
			"SET GLOBAL rpl_semi_sync_source_wait_point=AFTER_SYNC", "SET GLOBAL rpl_semi_sync_source_wait_no_replica=ON",
			"SET GLOBAL rpl_semi_sync_source_enabled=ON",
		}},
	} {
		t.Run(s.name, func(t *testing.T) {
			server, err := s.start(t.Context(), testenv.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = server.Stop(context.Background()) })
			seesWhatSemiSyncHides(t, server.Target(), s.set)
		})
	}
}

func seesWhatSemiSyncHides(t *testing.T, target testenv.SQLTarget, set []string) {
	d := openDatabase(t, target)
	d.exec("CREATE TABLE thing (id INT PRIMARY KEY, n INT)", "INSERT INTO thing VALUES (1, 0)")
	query := "SELECT n FROM " + d.schema + ".thing WHERE id=1"
	rec := newRecorder()
	var reader *binlog.Reader
	ready := make(chan struct{})
	var plain, waited string // what a SELECT saw before and after the wait
	rec.hook = func(tx *rowtide.Tx) error {
		if len(tx.Changes) == 0 || tx.Changes[0].Op != rowtide.OpUpdate {
			return nil
		}
		<-ready
		ctx := testContext(t)
		plain = one(ctx, t, reader, query)
		visible, err := reader.WaitFor(ctx, tx.Position.GTID)
		if err != nil {
			return err
		}
		if !visible {
			waited = one(ctx, t, reader, reader.Locking(query))
		} else {
			waited = one(ctx, t, reader, query)
		}
		return nil
	}
	s := follow(t, d.config(), binlog.NewFileStore(t.TempDir()+"/checkpoint"), rec, d.schema+".thing")
	reader = s.src.Reader()
	close(ready)
	d.exec(set...)
	began := time.Now()
	d.exec("UPDATE thing SET n=7 WHERE id=1")
	took := time.Since(began)
	s.await("the update", func(b []string) bool { return slices.Contains(b, "1 0>1 7") })
	if took < time.Second || plain != "0" {
		t.Fatalf("the commit took %s and a plain SELECT saw n=%s: the server did not hide it, so this test shows nothing", took, plain)
	}
	if waited != "7" {
		t.Errorf("a rebuild's read saw n=%s, want 7", waited)
	}
}

func one(ctx context.Context, t *testing.T, r *binlog.Reader, query string) string {
	t.Helper()
	_, rows, err := r.Query(ctx, query)
	if err != nil || len(rows) != 1 {
		t.Errorf("%s: %v %v", query, rows, err)
		return ""
	}
	text, err := rowtide.AppendText(nil, rows[0][0])
	if err != nil {
		t.Error(err)
	}
	return string(text)
}
