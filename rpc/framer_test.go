package rpc

import (
	"bytes"
	"errors"
	"net"
	"testing"

	"pgregory.net/rapid"
	"storj.io/drpc/drpcwire"
)

// tcpPair returns both ends of a connection, which the test's end closes.
func tcpPair(t *testing.T) (out, in net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if out, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if in, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = out.Close(), in.Close() })
	return out, in
}

// TestFramerIsReadByDRPC writes messages in pieces of all sizes, in either way, and has drpc's own reader take them in.
func TestFramerIsReadByDRPC(t *testing.T) {
	out, in := tcpPair(t)
	reader := drpcwire.NewReaderWithOptions(in, drpcwire.ReaderOptions{MaximumBufferSize: 16 << 20})
	c := newConn(out)
	f := newFramer(c, 1)
	size := rapid.SampledFrom([]int{0, 1, 7, 100, 4096, frameBytes - 1, frameBytes, frameBytes + 1, 200_000})
	rapid.Check(t, func(t *rapid.T) {
		var pieces [][]byte
		for i, n := range rapid.SliceOfN(size, 0, 6).Draw(t, "pieces") {
			pieces = append(pieces, bytes.Repeat([]byte{byte(i + 1)}, n))
		}
		want := bytes.Join(pieces, nil)
		written := make(chan error, 1)
		go func() {
			if len(want) < frameBytes && len(want)%2 == 0 {
				written <- errors.Join(f.tryWrite(pieces), f.complete())
				return
			}
			written <- f.write(pieces)
		}()
		packet, err := reader.ReadPacket()
		if err != nil || packet.Kind != drpcwire.KindMessage || !bytes.Equal(packet.Data, want) {
			t.Fatalf("%v: %d bytes of kind %v arrived, %d sent", err, len(packet.Data), packet.Kind, len(want))
		}
		if err := <-written; err != nil {
			t.Fatal(err)
		}
	})
}

// TestTryWriteDoesNotWait fills a socket that nobody reads: what it does not take is kept, and nothing is lost.
func TestTryWriteDoesNotWait(t *testing.T) {
	out, in := tcpPair(t)
	c := newConn(out)
	f := newFramer(c, 1)
	message := bytes.Repeat([]byte("m"), smallTrain)
	sent := 0
	for ; f.whole(); sent++ {
		if err := f.tryWrite([][]byte{message}); err != nil {
			t.Fatal(err)
		}
	}
	if f.canTry() {
		t.Error("one could begin a message in the middle of another")
	}
	written := make(chan error, 1)
	go func() { written <- f.complete() }()
	reader := drpcwire.NewReader(in)
	for range sent {
		packet, err := reader.ReadPacket()
		if err != nil || !bytes.Equal(packet.Data, message) {
			t.Fatalf("%v: %d bytes arrived", err, len(packet.Data))
		}
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
}
