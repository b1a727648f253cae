package nodetest

import (
	"io"
	"net"
	"testing"
	"time"
)

// TestNetwork cuts one connection in all ways, as its two ends see it.
func TestNetwork(t *testing.T) {
	c := &Cluster{t: t, network: newNetwork()}
	defer c.network.close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c.network.add(1, l.Addr().String())
	c.Nodes = []*Node{{}, {}}
	open := func() (one, other net.Conn) {
		far, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		one, err = at{c.network, 0}.Opened(far)
		if err != nil {
			t.Fatal(err)
		}
		if other, err = l.Accept(); err != nil {
			t.Fatal(err)
		}
		return one, other
	}
	says := func(from, to net.Conn, word string) {
		t.Helper()
		got := make([]byte, len(word))
		if _, err := from.Write([]byte(word)); err != nil {
			t.Fatal(err)
		}
		_ = to.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(to, got); err != nil || string(got) != word {
			t.Fatalf("got %q, %v, want %q", got, err, word)
		}
	}
	silent := func(to net.Conn) {
		t.Helper()
		_ = to.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, err := to.Read(make([]byte, 1)); n > 0 || err == io.EOF {
			t.Fatalf("something arrives: %d bytes, %v", n, err)
		}
	}
	one, other := open()
	says(one, other, "ping")
	says(other, one, "pong")

	c.Cut(0, 1)
	if (at{c.network, 0}).Passes(l.Addr().String()) {
		t.Error("packets pass a cut")
	}
	says(other, one, "do you hear me?")
	_, _ = one.Write([]byte("late"))
	silent(other)
	c.Heal()
	got := make([]byte, 4)
	_ = other.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(other, got); err != nil || string(got) != "late" {
		t.Fatalf("after the cut: %q, %v", got, err)
	}

	c.Block(1, 0) // the other one's calls: not this connection
	says(one, other, "ping")
	c.Block(0, 1)
	_, _ = one.Write([]byte("x"))
	_, _ = other.Write([]byte("y"))
	silent(one)
	silent(other)
	c.Heal()

	one, other = open()
	c.Isolate(1)
	_ = one.Close() // of which the other one hears when it can
	silent(other)
	c.Heal()
	_ = other.SetReadDeadline(time.Now().Add(patience))
	if _, err := other.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("the end does not arrive: %v", err)
	}
}
