package rpc

import (
	"errors"
	"runtime/debug"
	"sync"

	"storj.io/drpc/drpcwire"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/memory"
)

// tap takes the messages of an established stream off the connection before drpc sees them. drpc's reader would copy each message
// and hand it to another goroutine, which has to copy it once more to keep it. At full rate these copies were a fifth of a node's CPU, and
// on a quiet connection the hand-over is a wake-up for each message. A tap reads them straight into memory that the receiver may keep.
//
// It works inside conn.Read, on drpc's reading goroutine, which does not return from there as long as nothing but messages of the
// stream arrives. From the first other frame on (the end of the stream and its reason, for example) all bytes are drpc's again.
//
//	conn.Read ── messages ──▶ tap ──▶ receiver       on the same goroutine
//	     └────── all else ──▶ drpc ──▶ st.MsgRecv
type tap struct {
	conn      *conn
	stream    uint64
	receivers chan onBuffer // capacity 1: the next receiver
	ended     chan struct{} // closed when nothing more is delivered, after err is set
	err       error         // of the receiver; nil: what comes is drpc's, or nothing comes any more

	delivering sync.Mutex
	stopped    bool          // guarded by delivering: the receiver is gone
	gone       chan struct{} // closed with stopped

	// Of the reading goroutine only. buf[r:w] are bytes that are not looked at yet.
	receive onBuffer // nil: the next one has not come
	buf     []byte
	r, w    int
	mode    tapMode
	message *memory.Buffer // being put together, nil between messages
	last    uint64         // number of the last message
	left    int            // bytes of data of the present frame that are still to come
	done    bool           // the present frame is the last of its message
	large   int            // bytes of the last message of several frames: the next one is taken to be as large
	intake  *intake        // nil: what is received is not counted
	arrival arrival        // what message holds of it
}

// onBuffer takes a message and one reference of its memory. It must not block: what it says on the stream must not wait for the peer.
type onBuffer func(message *memory.Buffer) error

type tapMode uint8

const (
	tapDeliver tapMode = iota
	tapPass            // to drpc
	tapDiscard         // the receiver has failed: nobody wants the rest
)

const (
	tapBuffer  = 16 << 10
	directRead = 4 << 10 // at least so much of a frame is read to where it belongs
)

var errEarly = kerr.Errorf(kerr.InvalidRequest, "the peer went on before it was answered")

// tapStream diverts the messages of a stream of which messages have come so far. It is called while the peer has nothing to say: by the
// dialer before it says hello, by the other side before it answers that.
func (c *conn) tapStream(stream uint64, messages int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.guard.messages != messages || c.guard.skip > 0 || c.guard.field != 0 {
		return errEarly
	}
	c.tap.Store(&tap{conn: c, stream: stream, receivers: make(chan onBuffer, 1), ended: make(chan struct{}), gone: make(chan struct{}), buf: make([]byte, tapBuffer),
		intake: c.intake, arrival: arrival{conn: c}})
	return nil
}

// errNext ends a receiver's turn.
var errNext = errors.New("the next message is another receiver's")

// run has f called for each message until the stream ends or f fails, and returns f's error. nil: f has said errNext, or drpc knows how
// the stream ends, which next tells. over is closed when drpc takes the stream for ended, by either side: whether the connection is
// still read or not, nothing is delivered from then on.
func (t *tap) run(over <-chan struct{}, f onBuffer) (next bool, err error) {
	handed := make(chan struct{})
	t.receivers <- func(message *memory.Buffer) error {
		err := f(message)
		if err == errNext {
			close(handed)
		}
		return err
	}
	select {
	case <-handed:
		return true, nil
	case <-t.ended:
		return false, t.err
	case <-t.conn.closed: // drpc may not read any more, and then nobody notices
		t.stop()
	case <-over:
		t.stop()
	}
	select {
	case <-t.ended: // before it was closed, perhaps for a reason
		return false, t.err
	default:
		return false, nil
	}
}

// stop ends the deliveries; the one that is under way is waited for.
func (t *tap) stop() {
	t.delivering.Lock()
	defer t.delivering.Unlock()
	if !t.stopped {
		t.stopped = true
		close(t.gone)
	}
}

// feed takes bytes that were read on drpc's behalf before the tap was there.
func (t *tap) feed(p []byte) {
	t.buf = append(t.buf[:0], p...) // p may be longer
	t.r, t.w = 0, len(p)
	t.buf = t.buf[:cap(t.buf)]
}

// read is conn.Read while the tap is there.
func (t *tap) read(p []byte) (int, error) {
	for {
		if t.mode == tapPass && t.r < t.w {
			n := copy(p, t.buf[t.r:t.w])
			t.r += n
			return n, nil
		}
		if t.mode == tapPass {
			return t.conn.readSome(p)
		}
		if err := t.advance(); err != nil {
			t.end(nil, tapPass)
			return 0, err
		}
	}
}

// advance reads once and deals with what is there.
func (t *tap) advance() error {
	if t.mode == tapDiscard {
		_, err := t.conn.readSome(t.buf)
		return err
	}
	for t.mode == tapDeliver && t.r < t.w {
		more, err := t.parse()
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	if t.mode != tapDeliver {
		return nil
	}
	if t.left >= directRead && t.r == t.w {
		at := len(t.message.Bytes)
		n, err := t.conn.readSome(t.message.Bytes[at : at+t.left])
		t.message.Bytes, t.left = t.message.Bytes[:at+n], t.left-n
		if err == nil && t.left == 0 {
			t.frameDone()
		}
		return err
	}
	t.w = copy(t.buf, t.buf[t.r:t.w])
	t.r = 0
	n, err := t.conn.readSome(t.buf[t.w:])
	t.w += n
	return err
}

// parse deals with a part of what is in the buffer; false: more is needed.
func (t *tap) parse() (more bool, err error) {
	if t.left > 0 {
		n := min(t.left, t.w-t.r)
		t.message.Bytes = append(t.message.Bytes, t.buf[t.r:t.r+n]...)
		t.r, t.left = t.r+n, t.left-n
	} else if more, err = t.frameHead(); !more || err != nil {
		return more, err
	}
	if t.left == 0 && t.mode == tapDeliver {
		t.frameDone()
	}
	return true, nil
}

// frameHead parses the header of a frame.
func (t *tap) frameHead() (more bool, err error) {
	head := t.buf[t.r:t.w]
	control, rest := head[0], head[1:]
	var fields [3]uint64 // stream, message, length
	for i := range fields {
		var ok bool
		if rest, fields[i], ok, err = drpcwire.ReadVarint(rest); err != nil {
			return false, &malformed{"frame header with a number that is too long"}
		} else if !ok {
			return false, nil
		}
	}
	if drpcwire.Kind(control>>1&0x3f) != drpcwire.KindMessage || control&0x80 != 0 || fields[0] != t.stream {
		t.drop()
		t.end(nil, tapPass)
		return true, nil
	}
	if fields[2] > maxWireFrame {
		return false, &malformed{"frame of a message that is too long"}
	}
	t.r = t.w - len(rest)
	t.done, t.left = control&1 != 0, int(fields[2])
	return true, t.room(fields[1])
}

// room makes room for the present frame, the first of message id or one more of it.
func (t *tap) room(id uint64) error {
	if id < t.last || id == t.last && t.message == nil {
		return &malformed{"frame of a message that has been"}
	}
	if id != t.last {
		t.drop() // drpc, too, takes a new message for the end of an unfinished one
	}
	t.last = id
	if t.message == nil {
		size := t.left
		if !t.done && size == frameBytes { // one that was split because it is large
			size = max(2*size, t.large)
		}
		if err := t.intake.take(&t.arrival, memory.Size(size)); err != nil {
			return err
		}
		t.message = memory.New(size)
		t.message.Bytes = t.message.Bytes[:0]
	}
	need := len(t.message.Bytes) + t.left
	if uint64(need) > t.conn.guard.maxMessage.Load() {
		return &malformed{"message that is too long"}
	}
	if need > cap(t.message.Bytes) {
		size := max(need, 2*cap(t.message.Bytes))
		if err := t.intake.take(&t.arrival, memory.Size(size)); err != nil {
			return err
		}
		larger := memory.New(size)
		larger.Bytes = append(larger.Bytes[:0], t.message.Bytes...)
		t.message.Release()
		t.message = larger
	}
	if !t.done || len(t.message.Bytes) > 0 {
		t.large = need
	}
	return nil
}

// frameDone delivers the message if the frame was its last.
func (t *tap) frameDone() {
	if !t.done {
		return
	}
	message := t.message
	t.message = nil
	defer t.intake.give(&t.arrival) // whoever keeps it counts it himself
	if t.receive == nil {
		select {
		case t.receive = <-t.receivers:
		case <-t.conn.closed:
			message.Release()
			return
		case <-t.gone:
			message.Release()
			return
		}
	}
	switch err := t.deliver(message); err {
	case nil:
	case errNext:
		t.receive = nil
	default:
		t.end(err, tapDiscard)
	}
}

// deliver keeps panics of the receiver for the receiver's own goroutine.
func (t *tap) deliver(message *memory.Buffer) (err error) {
	t.delivering.Lock()
	defer t.delivering.Unlock()
	if t.stopped {
		message.Release()
		return nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = &panicked{value: p, stack: debug.Stack()}
		}
	}()
	return t.receive(message)
}

// drop gives up an unfinished message.
func (t *tap) drop() {
	if t.message != nil {
		t.message.Release()
		t.message = nil
		t.intake.give(&t.arrival)
	}
}

func (t *tap) end(err error, mode tapMode) {
	if t.mode == tapDeliver {
		t.err = err
		close(t.ended)
	}
	t.mode = mode
	t.drop()
}
