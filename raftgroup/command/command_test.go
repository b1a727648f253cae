package command

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCommand(t *testing.T) {
	for _, c := range []Command{{Kind: 1, Version: 1, Body: []byte{}}, {Kind: 255, Version: 7, Body: []byte("body")}} {
		b := c.Append([]byte("before"))[6:]
		require.True(t, Is(b))
		got, err := Parse(b)
		require.NoError(t, err)
		require.Equal(t, c, got)
		for n := range len(b) {
			_, err := Parse(b[:n])
			require.ErrorIs(t, err, ErrInvalid)
		}
		for bit := range 8 * len(b) {
			b[bit/8] ^= 1 << (bit % 8)
			_, err := Parse(b)
			require.ErrorIs(t, err, ErrInvalid, "bit %d", bit)
			b[bit/8] ^= 1 << (bit % 8)
		}
	}
	_, err := Parse(Command{Body: make([]byte, MaxBytes)}.Append(nil))
	require.ErrorIs(t, err, ErrInvalid)
	require.False(t, Is(nil), "a leader's empty entry")
	require.False(t, Is(make([]byte, 61)), "a batch at offset 0")
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{})
	f.Add(Command{Kind: 1, Version: 1, Body: []byte{42}}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse(b)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			return
		}
		require.True(t, Is(b))
		require.Equal(t, b, c.Append(nil))
	})
}
