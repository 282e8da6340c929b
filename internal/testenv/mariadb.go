package testenv

import "context"

// StartMariaDB starts a private MariaDB server. Root has no password and every
// privilege. It returns when the server answers.
func StartMariaDB(ctx context.Context, o Options) (*SQLServer, error) {
	bin := o.Bin
	if bin == "" {
		var ok bool
		if bin, ok = find("mariadbd"); !ok {
			return nil, notInstalled("MariaDB")
		}
	}
	installer, ok := find("mariadb-install-db")
	if !ok {
		return nil, notInstalled("mariadb-install-db")
	}
	return startSQL(ctx, sqlProgram{
		flavor:   FlavorMariaDB,
		bin:      bin,
		identity: "v1",
		flags: []string{
			"--gtid-strict-mode=ON",
			// The default of 96 MiB makes a copied data folder large for nothing.
			"--innodb-log-file-size=16M",
		},
		initialise: func(ctx context.Context, as credential, dir string) error {
			args := []string{
				"--no-defaults", "--datadir=" + dir,
				// An empty password over TCP instead of the unix socket's owner.
				"--auth-root-authentication-method=normal",
				"--skip-test-db", "--skip-name-resolve", "--innodb-log-file-size=16M",
			}
			return runTool(ctx, as, installer, append(args, as.sqlUser()...)...)
		},
	}, o)
}
