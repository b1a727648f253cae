package rpc

import (
	"context"
	"maps"

	"storj.io/drpc/drpcmetadata"
)

// withMetadata returns a context whose administrative calls carry the pair to the server, beside what ctx has already. Unlike
// drpcmetadata.Add it never writes to the map that ctx has: several calls may be made with it at once.
func withMetadata(ctx context.Context, key, value string) context.Context {
	pairs := map[string]string{}
	if old, ok := drpcmetadata.Get(ctx); ok {
		pairs = maps.Clone(old)
	}
	pairs[key] = value
	return drpcmetadata.AddPairs(withoutMetadata{ctx}, pairs)
}

// withoutMetadata hides drpc's metadata, the only value of this type that is ever put into a context of ours. Handlers get it around the
// incoming call's: what a stranger says there must not go out again with the calls that a node makes for him, in the node's name.
type withoutMetadata struct{ context.Context }

// Value implements context.Context.
func (c withoutMetadata) Value(key any) any {
	v := c.Context.Value(key)
	if _, ok := v.(map[string]string); ok {
		return nil
	}
	return v
}
