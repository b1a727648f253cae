package broker

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCleanClientID(t *testing.T) {
	long := strings.Repeat("x", MaxClientID-1)
	for said, want := range map[string]string{
		"":                            "",
		"billing-5":                   "billing-5",
		"Zähler 5 ✓":                  "Zähler 5 ✓",
		"billing\n2026 level=ERROR":   "billing?2026 level=ERROR",
		"\x1b[2Jgone":                 "?[2Jgone",
		"right\u202eleft":             "right?left",
		"\xff\xfe":                    "??",
		"a\x00b":                      "a?b",
		long + "yz":                   long + "y",
		long + "ä":                    long,
		long + "ä and more":           long,
		strings.Repeat("ä", 1<<10):    strings.Repeat("ä", MaxClientID/2),
		strings.Repeat("\x80", 1<<10): "",
	} {
		if got := CleanClientID(said); got != want {
			t.Errorf("%.40q became %.40q, want %.40q", said, got, want)
		}
	}
}

func FuzzCleanClientID(f *testing.F) {
	f.Add("billing")
	f.Add(strings.Repeat("\xf0\x9f\x98\x80", 100))
	f.Fuzz(func(t *testing.T, said string) {
		got := CleanClientID(said)
		if len(got) > MaxClientID || !utf8.ValidString(got) || strings.ContainsAny(got, "\n\r\x00") {
			t.Fatalf("%q became %q", said, got)
		}
		if again := CleanClientID(got); again != got {
			t.Fatalf("%q is not clean: %q", got, again)
		}
	})
}
