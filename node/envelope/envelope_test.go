package envelope

import (
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEnvelope(t *testing.T) {
	for _, sections := range [][]Section{
		nil,
		{{Kind: 1, Version: 1, Body: []byte{}}},
		{{Kind: 7, Version: 65535, Body: []byte("first")}, {Kind: 65535, Version: 0, Body: []byte("second")}},
	} {
		b := Append([]byte("before"), sections...)[6:]
		got, err := Parse(b)
		require.NoError(t, err)
		require.Equal(t, sections, got)
		for n := range len(b) {
			_, err := Parse(b[:n])
			require.ErrorIs(t, err, ErrDamaged)
		}
		_, err = Parse(append(b[:len(b):len(b)], 0))
		require.ErrorIs(t, err, ErrDamaged)
		for bit := range 8 * len(b) {
			b[bit/8] ^= 1 << (bit % 8)
			_, err := Parse(b)
			require.ErrorIs(t, err, ErrDamaged, "bit %d: damage is no later release", bit)
			b[bit/8] ^= 1 << (bit % 8)
		}
	}
}

func TestLaterEnvelope(t *testing.T) {
	b := Append(nil, Section{Kind: 1})
	binary.LittleEndian.PutUint16(b[4:], version+1)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b[:8], castagnoli))
	_, err := Parse(b)
	require.ErrorIs(t, err, ErrUnknown)
	require.ErrorContains(t, err, "version 2")
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{})
	f.Add(Append(nil, Section{Kind: 1, Version: 1, Body: []byte("body")}, Section{Kind: 2}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= headBytes {
			binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b[:8], castagnoli))
		}
		sections, err := Parse(b)
		if err == nil {
			require.Equal(t, b, Append(nil, sections...))
		}
	})
}
