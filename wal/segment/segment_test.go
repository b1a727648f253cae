package segment

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/quorumlog/quorumlog/wal/id"
)

func TestRowRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Row{
			Offset:       id.Offset(rapid.Int64Min(0).Draw(t, "offset")),
			Position:     id.Position(rapid.Int64Min(0).Draw(t, "position")),
			Index:        id.Index(rapid.Uint64().Draw(t, "index")),
			Term:         id.Term(rapid.Uint64().Draw(t, "term")),
			MaxTimestamp: rapid.Int64().Draw(t, "max"),
			Length:       rapid.Uint32().Draw(t, "length"),
			Records:      rapid.Uint32().Draw(t, "records"),
			Checksum:     rapid.Uint32().Draw(t, "checksum"),
			Kind:         rapid.Byte().Draw(t, "kind"),
		}
		b := r.Append(nil)
		var got Row
		if err := got.Parse(b); err != nil || got != r {
			t.Fatalf("%+v came back as %+v: %v", r, got, err)
		}
		b[rapid.IntRange(0, RowSize-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if err := got.Parse(b); !errors.Is(err, ErrCorruptRow) {
			t.Fatalf("a flipped bit was not seen: %v", err)
		}
	})
}

func TestNames(t *testing.T) {
	for name, want := range map[string]struct {
		key Key
		ok  bool
	}{
		"00000000000000000000.log":     {Key{}, true},
		"00000000000000000042.index":   {Key{Base: 42}, true},
		"00000000000000000042.7.log":   {Key{Base: 42, ID: 7}, true},
		"00000000000000000042.0.log":   {},
		"00000000000000000042.07.log":  {},
		"00000000000000000042.7.8.log": {},
		"42.log":                       {},
		"00000000000000000042":         {},
		"-0000000000000000042.log":     {},
		"leader-epoch-checkpoint":      {},
	} {
		key, ok := ParseName(name)
		if key != want.key || ok != want.ok {
			t.Errorf("%s: got %+v %v", name, key, ok)
		}
		if ok && key.Log() != name && key.Index() != name {
			t.Errorf("%s: comes back as %s", name, key.Log())
		}
	}
}

func FuzzParseRow(f *testing.F) {
	f.Add((&Row{Offset: 1, Length: 5}).Append(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Row
		if err := r.Parse(b); err == nil && string(r.Append(nil)[:49]) != string(b[:49]) {
			t.Fatalf("%x parsed to %+v, which is stored otherwise", b, r)
		}
	})
}

func FuzzParseName(f *testing.F) {
	f.Add("00000000000000000042.7.log")
	f.Fuzz(func(t *testing.T, name string) {
		if k, ok := ParseName(name); ok && k.Log() != name && k.Index() != name {
			t.Fatalf("%q parsed to %v", name, k)
		}
	})
}
