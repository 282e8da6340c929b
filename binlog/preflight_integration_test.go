//go:build integration

package binlog_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/rowtide/rowtide/binlog"
	"github.com/rowtide/rowtide/internal/testenv"
)

// preflight wants a failure that names every given thing.
func preflight(t *testing.T, cfg binlog.Config, needs []binlog.Need, queries map[string]string, want ...string) {
	t.Helper()
	src := binlog.New(cfg, nil, slog.New(slog.DiscardHandler), binlog.NopObserver{})
	defer src.Close()
	err := src.Preflight(testContext(t), needs, queries)
	if !errors.Is(err, binlog.ErrPreflight) {
		t.Fatalf("err=%v, want %v", err, binlog.ErrPreflight)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("message:\n%v\nlacks: %s", err, w)
		}
	}
}

func TestPreflight_Account(t *testing.T) {
	onEveryFlavor(t, func(t *testing.T, target testenv.SQLTarget) {
		d := openDatabase(t, target)
		d.eventTable()
		cfg := d.config()
		cfg.User, cfg.Password = strings.ReplaceAll(d.schema[len(d.schema)-12:], "_", ""), "right"
		d.exec(fmt.Sprintf("CREATE USER '%s'@'%%' IDENTIFIED BY 'right'", cfg.User))
		t.Cleanup(func() {
			if _, err := d.db.ExecContext(context.WithoutCancel(t.Context()), "DROP USER '"+cfg.User+"'@'%'"); err != nil {
				t.Error(err)
			}
		})
		wrong := cfg
		wrong.Password = "wrong"
		preflight(t, wrong, nil, nil, cfg.Addr+" refuses user \""+cfg.User+"\" (source.user, source.password)")
		needs := []binlog.Need{{Table: d.schema + ".event", For: "module event"}}
		see := "may not see the log's position: run GRANT REPLICATION CLIENT ON *.* TO " + cfg.User
		preflight(t, cfg, needs, nil,
			"may not replicate: run GRANT REPLICATION SLAVE ON *.* TO "+cfg.User, see,
			"module event: table "+d.schema+".event does not exist, or user \""+cfg.User+"\" may not read it: check the name, or run GRANT SELECT ON "+d.schema+".event TO "+cfg.User)
		// What the messages say to run is enough.
		client := "REPLICATION CLIENT"
		if target.Flavor == testenv.FlavorMariaDB {
			client = "BINLOG MONITOR"
		}
		d.exec(
			fmt.Sprintf("GRANT REPLICATION SLAVE, %s ON *.* TO '%s'@'%%'", client, cfg.User),
			fmt.Sprintf("GRANT SELECT ON %s.event TO '%s'@'%%'", d.schema, cfg.User),
		)
		cfg.StartAt = binlog.StartLatest
		src := binlog.New(cfg, []string{d.schema + ".event"}, slog.New(slog.DiscardHandler), binlog.NopObserver{})
		defer src.Close()
		if err := src.Preflight(testContext(t), needs, nil); err != nil {
			t.Fatalf("with the grants that were asked for: %v", err)
		}
		s := follow(t, cfg, &memory{}, newRecorder(), d.schema+".event")
		d.exec("INSERT INTO event VALUES (1,10)")
		s.want("+1 10")
	})
}

func TestPreflight_NeedsAndQueries(t *testing.T) {
	onEveryFlavor(t, func(t *testing.T, target testenv.SQLTarget) {
		d := openDatabase(t, target)
		d.eventTable()
		preflight(t, d.config(),
			[]binlog.Need{
				{Table: d.schema + ".nope", For: "module a"},
				{Table: d.schema + ".event", Columns: []string{"id", "titel"}, For: "module b"},
				{Table: "event", For: "module c"},
			},
			map[string]string{
				"module d: rebuild.one": "SELECT titel FROM " + d.schema + ".event WHERE id IN (?)",
				"module e: rebuild.one": "SELEC 1",
				"module f: rebuild.one": "SELECT id FROM " + d.schema + ".event WHERE id IN (?)",
			},
			"module a: table "+d.schema+".nope does not exist",
			"module b: table "+d.schema+".event has no column \"titel\"; it has id, v",
			"module c: table \"event\": want schema.table",
			"module d: rebuild.one: the server refuses the query:",
			"module e: rebuild.one: the server refuses the query:",
		)
		own := d.config()
		var id uint32
		if err := d.conn.QueryRowContext(testContext(t), "SELECT @@server_id").Scan(&id); err != nil {
			t.Fatal(err)
		}
		own.ServerID = id
		preflight(t, own, nil, nil, fmt.Sprintf("source.server_id %d is the server's own: choose another", id))
	})
}

func TestPreflight_Unreachable(t *testing.T) {
	cfg := binlog.Config{Addr: "127.0.0.1:1", User: "u", ServerID: 9}.WithDefaults()
	preflight(t, cfg, nil, nil, "cannot talk to 127.0.0.1:1 (source.addr); is the server up and reachable from here?")
}

func TestPreflight_ServerSettings(t *testing.T) {
	for _, flavor := range []string{testenv.FlavorMariaDB, testenv.FlavorMySQL} {
		t.Run(flavor, func(t *testing.T) {
			if flavor == testenv.FlavorMySQL {
				testenv.MySQL(t)
			}
			server := startPrivate(t, flavor)
			d := openDatabase(t, server.Target())
			cfg := d.config()
			openSource(t, cfg) // as it is, it will do
			d.exec("SET GLOBAL binlog_format='STATEMENT'", "SET GLOBAL binlog_row_image='MINIMAL'", "SET GLOBAL binlog_row_metadata='MINIMAL'")
			want := []string{
				`binlog_format is "STATEMENT", changes are logged as statements, not as rows: run SET GLOBAL binlog_format='ROW'`,
				`binlog_row_image is "MINIMAL", unchanged columns would be missing from the cache: run SET GLOBAL binlog_row_image='FULL'`,
				`binlog_row_metadata is "MINIMAL", events do not carry column names: run SET GLOBAL binlog_row_metadata='FULL'`,
				server.Addr + " (" + flavor + " ",
			}
			if flavor == testenv.FlavorMySQL {
				d.exec("SET GLOBAL binlog_row_value_options='PARTIAL_JSON'")
				want = append(want, `binlog_row_value_options is "PARTIAL_JSON", JSON columns are logged as fragments: run SET GLOBAL binlog_row_value_options=''`)
			}
			preflight(t, cfg, nil, nil, want...)
			d.exec("SET GLOBAL binlog_format='ROW'", "SET GLOBAL binlog_row_image='FULL'", "SET GLOBAL binlog_row_metadata='FULL'")
			if flavor == testenv.FlavorMySQL {
				d.exec("SET GLOBAL binlog_row_value_options=''")
			}
			openSource(t, cfg)
		})
	}
}

func TestPreflight_BinlogOff(t *testing.T) {
	for _, flavor := range []string{testenv.FlavorMariaDB, testenv.FlavorMySQL} {
		t.Run(flavor, func(t *testing.T) {
			if flavor == testenv.FlavorMySQL {
				testenv.MySQL(t)
			}
			server := startPrivate(t, flavor, "--skip-log-bin")
			cfg := binlog.Config{Addr: server.Addr, User: server.User, ServerID: 9}.WithDefaults()
			preflight(t, cfg, nil, nil, "log_bin is OFF: start the server with --log-bin")
		})
	}
}

func TestPreflight_GTIDModeOff(t *testing.T) {
	testenv.MySQL(t)
	server := startPrivate(t, testenv.FlavorMySQL, "--gtid-mode=OFF", "--enforce-gtid-consistency=OFF")
	d := openDatabase(t, server.Target())
	table := d.eventTable()
	cfg := d.config()
	cfg.Mode = binlog.ModeGTID
	preflight(t, cfg, nil, nil, "source.mode is gtid but gtid_mode is not ON; turn it on, or set source.mode to file")
	// In auto mode such a server is read by file.
	cfg.Mode = binlog.ModeAuto
	s := follow(t, cfg, &memory{}, newRecorder(), table)
	d.exec("INSERT INTO event VALUES (1,10)")
	s.want("+1 10")
	if s.save(); s.progress.Current().GTIDSet != "" {
		t.Errorf("checkpoint %+v, want no GTIDs", s.progress.Current())
	}
}
