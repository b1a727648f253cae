package broker

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxClientID is how many bytes of a client id count.
const MaxClientID = 249

// CleanClientID makes of what a client calls itself something that can be counted by and shown: at most MaxClientID bytes of UTF-8, in which
// '?' stands for whatever cannot be seen. Two ids that differ in nothing else are one.
func CleanClientID(said string) string {
	if len(said) > MaxClientID {
		said = said[:MaxClientID]
		for len(said) > 0 && !utf8.RuneStart(said[len(said)-1]) { // the cut may be in the middle of a character
			said = said[:len(said)-1]
		}
		if r, _ := utf8.DecodeLastRuneInString(said); r == utf8.RuneError && len(said) > 0 {
			said = said[:len(said)-1]
		}
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, said)
}
