package batch

import "fmt"

// Compression is a codec for the records of a batch, by Kafka's number.
type Compression uint8

// Kafka's codecs.
const (
	None Compression = iota
	Gzip
	Snappy
	LZ4
	Zstd

	maxCompression = Zstd
)

var compressionNames = [...]string{None: "none", Gzip: "gzip", Snappy: "snappy", LZ4: "lz4", Zstd: "zstd"}

// String is Kafka's name of the codec.
func (c Compression) String() string {
	if int(c) < len(compressionNames) {
		return compressionNames[c]
	}
	return fmt.Sprintf("codec %d", uint8(c))
}

// ParseCompression is the inverse of String.
func ParseCompression(name string) (Compression, error) {
	for c, n := range compressionNames {
		if n == name {
			return Compression(c), nil
		}
	}
	return None, fmt.Errorf("batch: compression %q is unknown: use none, gzip, snappy, lz4 or zstd", name)
}

// MarshalText implements encoding.TextMarshaler with the form of String.
func (c Compression) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler for the form of String.
func (c *Compression) UnmarshalText(text []byte) error {
	parsed, err := ParseCompression(string(text))
	if err == nil {
		*c = parsed
	}
	return err
}
