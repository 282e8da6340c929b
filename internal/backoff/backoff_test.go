package backoff_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowtide/rowtide/internal/backoff"
)

func TestBackoff_DoublesUpToTheMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := backoff.New(100*time.Millisecond, 500*time.Millisecond)
		wait := func(want time.Duration) {
			t.Helper()
			began := time.Now()
			if err := b.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(began); d < want*3/4 || d > want*5/4 {
				t.Errorf("waited %s, want %s give or take a quarter", d, want)
			}
		}
		for _, want := range []int{100, 200, 400, 500, 500} {
			wait(time.Duration(want) * time.Millisecond)
		}
		b.Reset()
		wait(100 * time.Millisecond)
	})
}

func TestBackoff_ContextEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := backoff.New(time.Hour, time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if err := b.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("err=%v after %s, want the deadline's after 1s", err, time.Since(began))
		}
	})
}

func TestBackoff_JitterVaries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := map[time.Duration]bool{}
		for range 10 {
			began := time.Now()
			if err := backoff.New(time.Second, time.Second).Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			seen[time.Since(began)] = true
		}
		if len(seen) < 2 {
			t.Errorf("ten waits were all %v", seen)
		}
	})
}
