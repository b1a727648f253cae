package kafka

import (
	"encoding/binary"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/memory"
)

func be32(b []byte) int32 { return int32(binary.BigEndian.Uint32(b)) }

// leastRequest is the smallest request there is: key, version, correlation id, and no client id.
const leastRequest = 10

// sizeOf returns the length of the request that begins with head, if it is one. What others say first is known: it is a large number here.
func (c *conn) sizeOf(head []byte, first bool) (int, error) {
	size, most := be32(head), c.server.options.RequestBytes
	switch {
	case size >= leastRequest && int64(size) <= int64(most):
		return int(size), nil
	case first && head[0] == 0x16 && head[1] == 3:
		return 0, malformedf("it is TLS, which this listener does not speak: start the node with --tls-cert, or the client without TLS (security.protocol=PLAINTEXT)")
	case first && isHTTP(head):
		return 0, malformedf("it is HTTP: this port speaks Kafka's protocol")
	case size < 0:
		return 0, malformedf("not Kafka's protocol: it begins with % x", head)
	}
	return 0, malformedf("a request of %d bytes: from %d to %d are taken", size, leastRequest, most)
}

func isHTTP(head []byte) bool {
	for _, method := range []string{"GET ", "HEAD", "POST", "PUT ", "DELE", "OPTI", "CONN", "PATC", "TRAC", "PRI "} {
		if string(head) == method {
			return true
		}
	}
	return false
}

// header is what every request begins with.
type header struct {
	key, version int16
	correlation  int32
	clientID     []byte // aliases the frame
}

// parseHeader takes the header off a request; body is the rest of it.
func parseHeader(frame []byte) (h header, r kbin.Reader, ok bool) {
	r = kbin.Reader{Src: frame}
	h.key, h.version, h.correlation = r.Int16(), r.Int16(), r.Int32()
	if n := r.Int16(); n > 0 { // never compact, whatever the version
		h.clientID = r.Span(int(n))
	}
	return h, r, r.Ok()
}

// receive takes a request, and with it the frame and the cost of it, what it holds of the connection's share.
func (c *conn) receive(frame *memory.Buffer, cost int) error {
	if frame == nil {
		return nil // the server is closing
	}
	drop := func(err error) error {
		frame.Release()
		c.answered(cost)
		return err
	}
	h, r, ok := parseHeader(frame.Bytes)
	if !ok {
		return drop(malformedf("not Kafka's protocol: a request without a header"))
	}
	t := &turn{header: h, caller: c.named(string(h.clientID)), cost: cost}
	api := c.server.apiOf(h.key)
	switch {
	case h.key == kmsg.ApiVersions.Int16() && (h.version < api.min || h.version > api.max):
		t.unserved = true // its form is not known: KIP-511
		frame.Release()
		c.push(t)
		return nil
	case api == nil:
		return drop(malformedf("a request with the key %d (%s), which is not served", h.key, kmsg.NameForKey(h.key)))
	case h.version < api.min || h.version > api.max:
		return drop(malformedf("%s in version %d: from %d to %d are served", api.key.Name(), h.version, api.min, api.max))
	case h.key == kmsg.Produce.Int16():
		return c.receiveProduce(t, frame, &r)
	case len(frame.Bytes) > maxMessage:
		return drop(malformedf("%s of %d bytes: at most %d are taken", api.key.Name(), len(frame.Bytes), maxMessage))
	}
	t.api, t.frame, t.body = api, frame, r.Src
	extra := (messageCost - 1) * len(frame.Bytes)
	if err := c.take(extra); err != nil {
		return drop(err)
	}
	t.cost += extra
	c.push(t)
	return nil
}

// decode makes a message of a request.
func (t *turn) decode() (kmsg.Request, error) {
	req := t.api.key.Request()
	req.SetVersion(t.version)
	r := kbin.Reader{Src: t.body}
	if req.IsFlexible() {
		kmsg.SkipTags(&r)
	}
	if !r.Ok() {
		return nil, malformedf("not Kafka's protocol: the header of %s is cut off", t.api.key.Name())
	}
	if err := req.ReadFrom(r.Src); err != nil {
		return nil, malformedf("%s in version %d cannot be understood: %v", t.api.key.Name(), t.version, err)
	}
	return req, nil
}
