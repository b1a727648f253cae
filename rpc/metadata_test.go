package rpc

import (
	"context"
	"testing"

	"storj.io/drpc/drpcmetadata"
)

func TestWithMetadataLeavesTheCallersMapAlone(t *testing.T) {
	t.Parallel()
	incoming := drpcmetadata.Add(context.Background(), "a", "1")
	outgoing := withMetadata(withMetadata(incoming, "b", "2"), "a", "3")
	at := func(ctx context.Context, key string) string {
		pairs, _ := drpcmetadata.Get(ctx)
		return pairs[key]
	}
	if a, b := at(outgoing, "a"), at(outgoing, "b"); a != "3" || b != "2" {
		t.Errorf("outgoing call carries a=%q b=%q", a, b)
	}
	if a, b := at(incoming, "a"), at(incoming, "b"); a != "1" || b != "" {
		t.Errorf("the incoming call's metadata was changed: a=%q b=%q", a, b)
	}
}
