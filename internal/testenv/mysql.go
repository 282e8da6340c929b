package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// rootOverTCP gives root an account for 127.0.0.1: --initialize makes one for
// "localhost" only, which without name resolution means the socket. It runs
// while the data folder is made, when there is no binlog yet.
const rootOverTCP = `CREATE USER 'root'@'127.0.0.1';
GRANT ALL ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION;
GRANT PROXY ON ''@'' TO 'root'@'127.0.0.1' WITH GRANT OPTION;
`

// StartMySQL starts a private MySQL server. Root has no password and every
// privilege. It returns when the server answers.
func StartMySQL(ctx context.Context, o Options) (*SQLServer, error) {
	bin := o.Bin
	if bin == "" {
		var err error
		if bin, err = findMySQL(ctx); err != nil {
			return nil, err
		}
	}
	return startSQL(ctx, sqlProgram{
		flavor:   FlavorMySQL,
		bin:      bin,
		identity: rootOverTCP,
		flags: []string{
			"--gtid-mode=ON", "--enforce-gtid-consistency=ON",
			"--mysqlx=OFF",
			// Debian's built-in default folder need not exist, and a start
			// fails without it.
			"--secure-file-priv=NULL",
			"--innodb-redo-log-capacity=64M",
		},
		initialise: func(ctx context.Context, as credential, dir string) error {
			return initialiseMySQL(ctx, as, bin, dir)
		},
	}, o)
}

func initialiseMySQL(ctx context.Context, as credential, bin, dir string) error {
	accounts := filepath.Join(filepath.Dir(dir), "accounts.sql")
	if err := os.WriteFile(accounts, []byte(rootOverTCP), 0o644); err != nil {
		return err
	}
	defer os.Remove(accounts)
	args := []string{
		"--no-defaults", "--initialize-insecure", "--datadir=" + dir, "--init-file=" + accounts,
		"--secure-file-priv=NULL", "--innodb-redo-log-capacity=64M",
	}
	if err := runTool(ctx, as, bin, append(args, as.sqlUser()...)...); err != nil {
		return err
	}
	// auto.cnf holds the server's UUID; two copies of a data folder must not
	// share one, for it is what GTIDs are made of.
	return os.Remove(filepath.Join(dir, "auto.cnf"))
}

// findMySQL prefers the server that `make setup` unpacked. On Debian a mysqld
// on PATH is usually MariaDB under its old name.
func findMySQL(ctx context.Context) (string, error) {
	bin, _, err := cached("mysql", "mysqld")
	if err == nil {
		return bin, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	bin, ok := find("mysqld")
	if ok {
		out, err := exec.CommandContext(ctx, bin, "--no-defaults", "--version").Output()
		if err != nil {
			return "", fmt.Errorf("ask %s for its version: %w", bin, err)
		}
		ok = !strings.Contains(string(out), "MariaDB")
	}
	if !ok {
		return "", notInstalled("MySQL")
	}
	return bin, nil
}
