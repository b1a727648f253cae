package membership

import (
	"net"
	"slices"
	"testing"
	"time"
)

// TestSeeds looks which seeds are known: this node under each of its names is none of the others, and one that nobody is behind is silent.
func TestSeeds(t *testing.T) {
	first, err := Start(Options{Cluster: "c", Self: Self{Node: 1, Boot: 1, StoreID: "a", RPCAddress: "a:1"}, BindAddress: "127.0.0.1:0", Profile: Test})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(free.Addr().String())
	_ = free.Close()
	silent := []string{"127.0.0.1:1", "name.that.does.not.resolve.invalid:1"}
	second, err := Start(Options{
		Cluster: "c", Self: Self{Node: 2, Boot: 1, StoreID: "b", RPCAddress: "b:1"}, BindAddress: "0.0.0.0:" + port, AdvertiseAddress: "127.0.0.1", Profile: Test,
		Seeds: append([]string{first.Address(), "127.0.0.1:" + port, "localhost:" + port, "127.0.0.2:" + port}, silent...),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	deadline := time.Now().Add(time.Minute)
	for {
		s := second.Seeds(t.Context(), second.Members())
		if s.Others == 3 && slices.Equal(s.Silent, silent) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", s)
		}
		<-time.After(10 * time.Millisecond)
	}
}
