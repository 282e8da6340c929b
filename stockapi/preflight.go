package stockapi

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Preflight tests what must be so before the first sale. It returns warnings for
// what could not be found out, and an error that joins what is wrong, each with
// what mends it. db may be nil for a process without a ledger.
func Preflight(ctx context.Context, rdb redis.UniversalClient, db *sql.DB) (warnings []string, err error) {
	var errs []error
	errs = append(errs, CheckRedis(rdb))
	policy, err := evictionPolicy(ctx, rdb)
	switch {
	case err != nil && !definite(err):
		errs = append(errs, fmt.Errorf("stock: ask redis for maxmemory-policy: %w", err))
	case policy == "":
		warnings = append(warnings, "stock: redis does not tell its maxmemory-policy (CONFIG and INFO are denied); "+
			"make sure that it is noeviction")
	case policy != "noeviction":
		errs = append(errs, fmt.Errorf("stock: maxmemory-policy is %s: redis may drop stock counters and holds; "+
			"run CONFIG SET maxmemory-policy noeviction", policy))
	}
	if db != nil {
		if err := checkSchema(ctx, db); err != nil {
			errs = append(errs, fmt.Errorf("stock: %w", err))
		}
	}
	return warnings, errors.Join(errs...)
}

// evictionPolicy asks CONFIG, then INFO, which managed services allow more often.
// It returns "" with Redis's refusal when neither is allowed.
func evictionPolicy(ctx context.Context, rdb redis.UniversalClient) (string, error) {
	conf, err := rdb.ConfigGet(ctx, "maxmemory-policy").Result()
	if err == nil {
		return conf["maxmemory-policy"], nil
	}
	if !definite(err) {
		return "", err
	}
	text, err := rdb.Info(ctx, "memory").Result()
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "maxmemory_policy:"); ok {
			return v, nil
		}
	}
	return "", nil
}
