package rpc

import (
	"context"
	"maps"

	"storj.io/drpc/drpcmetadata"
)

// WithMetadata returns a context whose administrative calls carry the pair to the server, beside what ctx has already. Unlike
// drpcmetadata.Add it never writes to the map that ctx has: a server hands the map of the incoming call to its handler, which may
// make several calls of its own at once.
func WithMetadata(ctx context.Context, key, value string) context.Context {
	pairs := map[string]string{}
	if old, ok := drpcmetadata.Get(ctx); ok {
		pairs = maps.Clone(old)
	}
	pairs[key] = value
	return drpcmetadata.AddPairs(withoutMetadata{ctx}, pairs)
}

// Metadata returns what the caller of the administrative call with this context has sent along under key, or "".
func Metadata(ctx context.Context, key string) string {
	pairs, _ := drpcmetadata.Get(ctx)
	return pairs[key]
}

// withoutMetadata hides drpc's metadata, the only value of this type that is ever put into a context of ours.
type withoutMetadata struct{ context.Context }

// Value implements context.Context.
func (c withoutMetadata) Value(key any) any {
	v := c.Context.Value(key)
	if _, ok := v.(map[string]string); ok {
		return nil
	}
	return v
}
