package rpc

import (
	"context"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/lni/goutils/leaktest"

	"github.com/quorumlog/quorumlog/rpc/pb"
)

// TestPongsTellTheAge: a client of either stream learns how old the node's knowledge is while nothing else is said, and that it lives.
func TestPongsTellTheAge(t *testing.T) {
	defer leaktest.AfterTest(t)()
	var age atomic.Int64
	s := startServer(t, ServerOptions{Node: 5, Age: func() time.Duration { return time.Duration(age.Load()) }, Services: Services{
		Fetch:   func(f *FetchStream) error { return f.Recv(func(FetchCommand) error { return nil }) },
		Produce: func(p *ProduceStream) error { return serve(p, func(ProduceRequest) {}) },
	}})
	defer closeServer(t, s)
	fetch, err := new(Dialer).DialFetch(t.Context(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	produce, err := new(Dialer).DialProduce(t.Context(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 2)
	go func() { done <- fetch.Recv(func(FetchEvent) {}) }()
	go func() { done <- produce.Recv(func(ProduceResponse) {}) }()
	for _, c := range []*client{fetch.client, produce.client} {
		for _, want := range []time.Duration{3 * time.Second, -1, 0} {
			age.Store(int64(want))
			eventually(t, 10*time.Second, "the age", func() bool { return c.Age() == want || want < 0 && c.Age() < 0 })
			if silent := c.Silent(); silent > 5*time.Second {
				t.Errorf("silent for %v", silent)
			}
		}
	}
	_, _ = fetch.Close(), produce.Close()
	for range 2 {
		within(t, 5*time.Second, "Recv returned", done)
	}
}

func TestPongCodec(t *testing.T) {
	for _, age := range []time.Duration{0, time.Millisecond, 90 * time.Second, -1} {
		if got := decodePong(appendPong(nil, age)); got != age {
			t.Errorf("%v comes back as %v", age, got)
		}
	}
	if got := decodePong(appendPong(nil, math.MaxInt64)); got < 40*24*time.Hour {
		t.Errorf("a very long time comes back as %v", got)
	}
	if got := decodePong(frameOf(framePong)); got != 0 {
		t.Errorf("a pong without an age: %v", got)
	}
}

type clusterAdmin struct {
	pb.DRPCAdminUnimplementedServer
	calls atomic.Int32
}

func (a *clusterAdmin) Metadata(context.Context, *pb.MetadataRequest) (*pb.MetadataResponse, error) {
	a.calls.Add(1)
	return &pb.MetadataResponse{}, nil
}

// TestCallsForAnotherClusterAreRefused before they reach their handler.
func TestCallsForAnotherClusterAreRefused(t *testing.T) {
	admin := &clusterAdmin{}
	s := startServer(t, ServerOptions{Node: 5, ClusterID: "ours", Services: Services{Admin: admin}})
	for _, tt := range []struct {
		means string
		want  kerr.Code
	}{{"", kerr.None}, {"ours", kerr.None}, {"theirs", kerr.InconsistentClusterID}} {
		d := new(Dialer)
		if tt.means != "" {
			d.MeansCluster(tt.means)
		}
		before := admin.calls.Load()
		_, err := d.Admin(s.Addr().String()).Metadata(t.Context(), &pb.MetadataRequest{})
		if kerr.CodeOf(err) != tt.want || admin.calls.Load()-before != map[bool]int32{true: 1, false: 0}[tt.want == kerr.None] {
			t.Errorf("meant for %q: %v", tt.means, err)
		}
		if err != nil && (!strings.Contains(err.Error(), "ours") || !strings.Contains(err.Error(), "theirs")) {
			t.Errorf("%v: it names both clusters", err)
		}
		_ = d.Close()
	}
}
