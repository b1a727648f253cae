package rpc

import (
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"storj.io/drpc/drpcwire"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/pb"
)

// lagging is a connection whose writer learns late that all is written.
type lagging struct{ net.Conn }

func (l lagging) Write(b []byte) (int, error) {
	n, err := l.Conn.Write(b)
	time.Sleep(time.Second)
	return n, err
}

// TestRefusalBeforeTheRequestIsSent: a server that refuses and hangs up before the client's goroutine has come back from writing is heard all
// the same. drpc takes the end of the connection for the reason then.
func TestRefusalBeforeTheRequestIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		near, far := net.Pipe()
		go func() {
			_, _ = far.Read(make([]byte, 4096))
			reason := drpcwire.MarshalError(toWire(kerr.Errorf(kerr.PolicyViolation, "not you")))
			_, _ = far.Write(wireFrame(drpcwire.KindError, 1, 1, reason))
			_ = far.Close()
		}()
		d := &Dialer{WrapConn: func(raw net.Conn) (net.Conn, error) { return lagging{near}, raw.Close() }}
		defer d.Close()
		_, err = d.Admin(l.Addr().String()).Metadata(t.Context(), &pb.MetadataRequest{})
		if kerr.CodeOf(err) != kerr.PolicyViolation || !strings.Contains(err.Error(), "not you") {
			t.Errorf("got %v", err)
		}
	})
}
