package rpc

import (
	"context"
	"testing"

	"storj.io/drpc/drpcmetadata"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/pb"
)

// seen is an administrative call as its handler gets it.
type seen struct {
	forwarded bool
	caller    *broker.Caller
	metadata  map[string]string
}

type seeing struct {
	pb.DRPCAdminUnimplementedServer
	calls chan seen
}

func (s *seeing) Metadata(ctx context.Context, _ *pb.MetadataRequest) (*pb.MetadataResponse, error) {
	pairs, _ := drpcmetadata.Get(ctx)
	s.calls <- seen{broker.IsForwarded(ctx), CallerOf(ctx), pairs}
	return &pb.MetadataResponse{}, nil
}

// TestForwarded: the mark of a call that was passed on travels, and nothing else of what came with a call goes out again with those of its
// handler.
func TestForwarded(t *testing.T) {
	service := &seeing{calls: make(chan seen, 1)}
	s := startServer(t, ServerOptions{Services: Services{Admin: service}})
	d := &Dialer{}
	defer d.Close()
	client := d.Admin(s.Addr().String())
	for _, forwarded := range []bool{false, true, false} {
		ctx := withMetadata(t.Context(), "strange", "1")
		if forwarded {
			ctx = broker.Forwarded(ctx)
		}
		if _, err := client.Metadata(ctx, &pb.MetadataRequest{}); err != nil {
			t.Fatal(err)
		}
		got := <-service.calls
		if got.forwarded != forwarded {
			t.Errorf("forwarded: %v, should be %v", got.forwarded, forwarded)
		}
		if len(got.metadata) != 0 {
			t.Errorf("the handler's calls would carry %v", got.metadata)
		}
		if !got.caller.Host.IsLoopback() || got.caller.Principal != broker.Anonymous {
			t.Errorf("the caller is %+v", got.caller)
		}
	}
}
