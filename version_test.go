package rowtide_test

import (
	"cmp"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/rowtide/rowtide"
)

type place struct {
	epoch, file uint32
	pos         uint64
}

func anyPlace(t *rapid.T) place {
	return place{
		rapid.Uint32Range(0, rowtide.MaxEpoch).Draw(t, "epoch"),
		rapid.Uint32Range(0, rowtide.MaxFileNumber).Draw(t, "file"),
		rapid.Uint64Range(0, math.MaxUint32).Draw(t, "pos"),
	}
}

func TestVersion_OrderIsEpochThenFileThenPosition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyPlace(t), anyPlace(t)
		if rapid.Bool().Draw(t, "same epoch") {
			b.epoch = a.epoch
			if rapid.Bool().Draw(t, "same file") {
				b.file = a.file
			}
		}
		va, errA := rowtide.NewVersion(a.epoch, a.file, a.pos)
		vb, errB := rowtide.NewVersion(b.epoch, b.file, b.pos)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		want := cmp.Or(cmp.Compare(a.epoch, b.epoch), cmp.Compare(a.file, b.file), cmp.Compare(a.pos, b.pos))
		if got := cmp.Compare(va, vb); got != want {
			t.Fatalf("%v against %v: %d, want %d", va, vb, got, want)
		}
		if va.Epoch() != a.epoch || va.File() != a.file || uint64(va.Pos()) != a.pos {
			t.Fatalf("%v has parts %d %d %d, want %v", va, va.Epoch(), va.File(), va.Pos(), a)
		}
	})
}

func TestNewVersion_SaturatesPast4GiB(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := anyPlace(t)
		p.pos = rapid.Uint64Min(math.MaxUint32).Draw(t, "pos")
		v, err := rowtide.NewVersion(p.epoch, p.file, p.pos)
		if err != nil || v.Pos() != math.MaxUint32 || v.File() != p.file || v.Epoch() != p.epoch {
			t.Fatalf("%v, %v: want %d/%d/%d", v, err, p.epoch, p.file, uint32(math.MaxUint32))
		}
	})
}

func TestNewVersion_RefusesToWrapAround(t *testing.T) {
	for _, tt := range []struct {
		name string
		p    place
		want string // part of the message; "" is no error
	}{
		{"largest", place{rowtide.MaxEpoch, rowtide.MaxFileNumber, math.MaxUint64}, ""},
		{"epoch", place{rowtide.MaxEpoch + 1, 1, 4}, "epoch 4096 is above 4095"},
		{"file", place{1, rowtide.MaxFileNumber + 1, 4}, "file number 1048576 is above 1048575; start a new epoch"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := rowtide.NewVersion(tt.p.epoch, tt.p.file, tt.p.pos)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err=%v, want %q", err, tt.want)
			}
		})
	}
}

func TestVersion_String(t *testing.T) {
	if got, want := version(t, 2, 4, 157).String(), "2/4/157"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := rowtide.Version(0).String(), "0/0/0"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
