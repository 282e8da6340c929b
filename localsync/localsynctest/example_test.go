package localsynctest_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/rowtide/rowtide/localsync"
	"github.com/rowtide/rowtide/localsync/localsynctest"
)

// Shop is what the application builds on a cache.
type Shop struct {
	titles *localsync.Module[int64, string]
}

// NewShop declares the application's modules.
func NewShop(c *localsync.Cache, load func(context.Context, []int64) (map[int64]string, error)) (*Shop, error) {
	titles, err := localsync.NewModule(c, localsync.ModuleConfig[int64]{Name: "title"}, localsync.JSON[string](), load)
	return &Shop{titles}, err
}

// Title is a page's headline.
func (s *Shop) Title(ctx context.Context, id int64) string {
	title, err := s.titles.Get(ctx, id)
	if err != nil {
		return "(" + err.Error() + ")"
	}
	return title
}

// example runs fn as a test; an example has no testing.T of its own.
func example(fn func(t testing.TB)) {
	t := &standIn{}
	defer t.end()
	fn(t)
}

// standIn is as much of a testing.TB as a harness needs.
type standIn struct {
	testing.TB
	cleanups []func()
}

func (*standIn) Helper() {}

func (*standIn) Context() context.Context { return context.Background() }

func (t *standIn) Cleanup(fn func()) { t.cleanups = append(t.cleanups, fn) }

func (*standIn) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }

func (*standIn) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (*standIn) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

func (t *standIn) end() {
	for _, fn := range slices.Backward(t.cleanups) {
		fn()
	}
}

// A test of an application: what its pages show after a change, and what while the
// change has not been heard of.
func Example() {
	example(func(t testing.TB) {
		h := localsynctest.New(t)
		shop, err := NewShop(h.Cache(), func(context.Context, []int64) (map[int64]string, error) { return nil, nil })
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(shop.Title(t.Context(), 42))

		h.Commit("title", 42, "Hamlet")
		fmt.Println(shop.Title(t.Context(), 42))

		h.DropMessages(1)
		h.Commit("title", 42, "Macbeth")
		fmt.Println(shop.Title(t.Context(), 42), len(h.Diverged()))
		h.Advance(time.Second) // a heartbeat shows that something is missing
		fmt.Println(shop.Title(t.Context(), 42))

		h.Delete("title", 42)
		fmt.Println(shop.Title(t.Context(), 42))
		h.AssertConverged()
	})
	// Output:
	// (not found)
	// Hamlet
	// Hamlet 1
	// Macbeth
	// (not found)
}

// Two nodes, one of which does not hear of a change.
func ExampleHarness_Node() {
	example(func(t testing.TB) {
		h := localsynctest.New(t)
		load := func(context.Context, []int64) (map[int64]string, error) {
			return map[int64]string{42: "Hamlet"}, nil
		}
		one, two := h.Node(), h.Node()
		a, _ := NewShop(one.Cache, load)
		b, _ := NewShop(two.Cache, load)
		fmt.Println(a.Title(t.Context(), 42), b.Title(t.Context(), 42))

		two.DropMessages(1)
		h.Commit("title", 42, "Macbeth")
		fmt.Println(a.Title(t.Context(), 42), b.Title(t.Context(), 42))
	})
	// Output:
	// Hamlet Hamlet
	// Macbeth Hamlet
}
