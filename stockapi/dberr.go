package stockapi

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-sql-driver/mysql"
)

// Numbers of server errors that decide what the ledger does.
const (
	errDupEntry        = 1062 // an event or a hold is there already, below the filter
	errCheckMySQL      = 3819 // CHECK constraint: a counter would be negative
	errCheckMariaDB    = 4025
	errNoSuchTable     = 1146
	errNoDatabase      = 1049
	errRecordChanged   = 1020 // MariaDB's snapshot conflict
	errLockWait        = 1205
	errDeadlock        = 1213
	errShutdown        = 1053
	errTooManyConns    = 1040
	errReadOnly        = 1290
	errReadOnlyServer  = 1836
	errQueryInterrupt  = 1317
	errConnKilled      = 1927 // MariaDB
	errServerIsOffline = 3032
)

// classify adds the sentinel that fits a server error.
func classify(err error) error {
	e, ok := errors.AsType[*mysql.MySQLError](err)
	if !ok {
		return err
	}
	switch e.Number {
	case errDupEntry, errCheckMySQL, errCheckMariaDB:
		return fmt.Errorf("%w: %w", ErrDivergence, err)
	case errNoSuchTable, errNoDatabase:
		return fmt.Errorf("%w: %w", ErrSchemaMissing, err)
	}
	return err
}

// retryable tells faults that the same transaction may outlive: the server is
// away, or another transaction was in the way. Repeating is never blind, since a
// transaction begins by reading the position under a lock.
func retryable(err error) bool {
	for _, fatal := range []error{ErrGap, ErrDivergence, ErrFenced, ErrBadEvent, ErrSchemaMissing, context.Canceled} {
		if errors.Is(err, fatal) {
			return false
		}
	}
	e, ok := errors.AsType[*mysql.MySQLError](err)
	if !ok {
		return true // no answer of the server: connection, driver
	}
	switch e.Number {
	case errRecordChanged, errLockWait, errDeadlock, errShutdown, errTooManyConns,
		errReadOnly, errReadOnlyServer, errQueryInterrupt, errConnKilled, errServerIsOffline:
		return true
	}
	return false
}
