package rpc

import (
	"context"
	"testing"

	"storj.io/drpc/drpcmetadata"
)

func TestWithMetadataLeavesTheCallersMapAlone(t *testing.T) {
	t.Parallel()
	incoming := drpcmetadata.Add(context.Background(), "a", "1")
	outgoing := WithMetadata(WithMetadata(incoming, "b", "2"), "a", "3")
	if a, b := Metadata(outgoing, "a"), Metadata(outgoing, "b"); a != "3" || b != "2" {
		t.Errorf("outgoing call carries a=%q b=%q", a, b)
	}
	if a, b := Metadata(incoming, "a"), Metadata(incoming, "b"); a != "1" || b != "" {
		t.Errorf("the incoming call's metadata was changed: a=%q b=%q", a, b)
	}
}
