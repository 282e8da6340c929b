package binlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// PreflightQueries is [Source.Preflight] for who only wants [Source.Reader]: it
// checks tables, columns and queries, and nothing of the log.
func (s *Source) PreflightQueries(ctx context.Context, needs []Need, queries map[string]string) error {
	if err := s.connect(ctx); err != nil {
		return err
	}
	faults := slices.Concat(checkNeeds(ctx, s.db, s.cfg.User, needs), checkQueries(ctx, s.db, queries))
	if len(faults) > 0 {
		return fmt.Errorf("%w: %w", ErrPreflight, errors.Join(faults...))
	}
	return nil
}
