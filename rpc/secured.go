package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"storj.io/drpc/drpcwire"

	"github.com/quorumlog/quorumlog/rpc/kerr"
)

// secured is TLS over a socket. crypto/tls makes one record of at most 16 KiB of each piece that it is given, and one system call of each
// record. So pieces are put together here, and the records are held back below it (corked) until they are worth a call, or until it is
// known whether the socket takes them without waiting.
type secured struct {
	*tls.Conn
	below  *corked
	shaken bool // the handshake is over; of the reading goroutine
	// refused, when not nil, is told why the other side does not believe this one. That comes after the handshake (TLS 1.3), with a read.
	refused func(error)
}

// maxRecord is how much TLS carries in one record.
const maxRecord = 16 << 10

// plains are where small pieces are put together.
var plains = sync.Pool{New: func() any { return new([maxRecord]byte) }}

// secureServer is the side that was dialled. It does no I/O: the handshake comes with the first read.
func secureServer(raw net.Conn, config *tls.Config) *secured {
	below := newCorked(raw)
	_ = raw.SetWriteDeadline(time.Now().Add(preludeTimeout)) // of the handshake; conn moves it on
	return &secured{Conn: tls.Server(below, config), below: below}
}

// secureClient is the side that dials; when it returns, the other one has shown who it is.
func secureClient(ctx context.Context, raw net.Conn, config *tls.Config) (*secured, error) {
	below := newCorked(raw)
	s := &secured{Conn: tls.Client(below, config), below: below, shaken: true}
	err := s.HandshakeContext(ctx)
	var header tls.RecordHeaderError
	switch {
	case err == nil:
		return s, nil
	case errors.As(err, &header):
		return nil, fmt.Errorf("it does not speak TLS: %w", err)
	case ctx.Err() == nil && hungUpInHandshake(err):
		return nil, fmt.Errorf("it hung up in the TLS handshake, as a node does that was started without TLS: %w", err)
	}
	return nil, err
}

func hungUpInHandshake(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// Read implements net.Conn. Of a server's side the first one shakes hands.
func (s *secured) Read(p []byte) (int, error) {
	if !s.shaken {
		if err := s.Handshake(); err != nil {
			if isQuiet(err) {
				return 0, err
			}
			s.farewell(err)
			return 0, &malformed{"TLS: " + whyNot(err)}
		}
		s.shaken = true
	}
	n, err := s.Conn.Read(p)
	var said *net.OpError
	if s.refused != nil && errors.As(err, &said) && said.Op == "remote error" {
		s.refused(err)
	}
	return n, err
}

// whyNot says to whoever runs the node why a handshake failed: whose certificate is not believed, by whom, and what to do.
func whyNot(err error) string {
	var unbelieved *tls.CertificateVerificationError
	var said *net.OpError
	switch {
	case errors.As(err, &unbelieved) && len(unbelieved.UnverifiedCertificates) > 0:
		return fmt.Sprintf("the certificate of %.256s is not believed: %v", unbelieved.UnverifiedCertificates[0].Subject, unbelieved.Err)
	case errors.As(err, &said) && said.Op == "remote error":
		return fmt.Sprintf("the other side does not believe this node's certificate: %v", said.Err)
	case strings.HasSuffix(err.Error(), "client didn't provide a certificate"): // crypto/tls has no type for it
		return "the other side shows no certificate: clients need one ('quorumlog cert client'), or the node --tls-client-auth requested"
	}
	return err.Error()
}

// isQuiet tells whether the other side has said nothing, or has gone: there is nothing to answer.
func isQuiet(err error) bool {
	return hungUpInHandshake(err) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed)
}

// farewell is the end of a handshake that failed. What the other side has sent meanwhile must be read before the connection is closed, or
// it is reset and the alert that says why may be lost. To a client without TLS the reason is said in its own words.
func (s *secured) farewell(err error) {
	raw := s.below.Conn
	var header tls.RecordHeaderError
	if errors.As(err, &header) && header.Conn != nil && isPlainCall(header.RecordHeader[0]) {
		reason := toWire(kerr.Errorf(kerr.SecurityDisabled, "this port speaks TLS: use it, with the certificate of the authority (--tls-ca)"))
		_, _ = raw.Write(drpcwire.AppendFrame(nil, drpcwire.Frame{
			ID: drpcwire.ID{Stream: 1, Message: 1}, Kind: drpcwire.KindError, Data: drpcwire.MarshalError(reason), Done: true,
		}))
		// No end of the connection yet: drpc would take it for the reason, if it comes while the call is still being written.
	} else if w, ok := raw.(interface{ CloseWrite() error }); !ok || w.CloseWrite() != nil {
		return
	}
	_ = raw.SetReadDeadline(time.Now().Add(lingerTimeout))
	_, _ = io.CopyN(io.Discard, raw, maxPrelude)
}

// isPlainCall tells whether a connection that begins with this byte is that of a client of ours without TLS.
func isPlainCall(control byte) bool {
	kind := control >> 1 & 0x3f
	return kind == kindInvoke || kind == kindMetadata
}

// Close closes the socket. crypto/tls would say goodbye first, and wait for a peer that does not read.
func (s *secured) Close() error { return s.below.Conn.Close() }

// writev writes the pieces, of which it keeps nothing.
func (s *secured) writev(pieces [][]byte) error {
	s.below.hold()
	err := s.encrypt(pieces)
	if e := s.below.release(); err == nil {
		err = e
	}
	return err
}

// tryWrite writes b, which is small, as far as the socket takes it without waiting; below keeps the rest.
func (s *secured) tryWrite(b []byte) error {
	s.below.hold()
	_, err := s.Write(b)
	if e := s.below.tryRelease(); err == nil {
		err = e
	}
	return err
}

// encrypt makes as few records as can be.
func (s *secured) encrypt(pieces [][]byte) error {
	plain := plains.Get().(*[maxRecord]byte)
	defer plains.Put(plain)
	n := 0
	for _, p := range pieces {
		for len(p) > 0 {
			took := 0
			if n == 0 && len(p) >= maxRecord {
				took = len(p) - len(p)%maxRecord
				if _, err := s.Write(p[:took]); err != nil {
					return err
				}
			} else {
				took = copy(plain[n:], p)
				if n += took; n == maxRecord {
					if _, err := s.Write(plain[:]); err != nil {
						return err
					}
					n = 0
				}
			}
			p = p[took:]
		}
	}
	if n == 0 {
		return nil
	}
	_, err := s.Write(plain[:n])
	return err
}

// corked is the socket below TLS. While it is held, what is written to it is kept; all that it keeps goes out before anything that is
// written later, whoever writes it: crypto/tls itself does, from the reading goroutine.
type corked struct {
	net.Conn
	raw syscall.RawConn // for tryRelease; nil: not to be had

	mu struct {
		sync.Mutex // held across writes: records are in order
		held       bool
		kept       []byte  // of buffer
		buffer     *[]byte // nil: none is needed
	}
}

// corkBytes is how much is kept: then it is written, held or not.
const corkBytes = 128 << 10

var corkBuffers = sync.Pool{New: func() any {
	b := make([]byte, 0, corkBytes+maxRecord+1<<10)
	return &b
}}

func newCorked(c net.Conn) *corked {
	k := &corked{Conn: c}
	if tcp, ok := c.(*net.TCPConn); ok { // nothing that wraps one: its bytes are not the socket's
		k.raw, _ = tcp.SyscallConn()
	}
	return k
}

// Write implements net.Conn.
func (k *corked) Write(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.mu.held {
		k.mu.kept = append(k.mu.kept, p...)
		if len(k.mu.kept) < corkBytes {
			return len(p), nil
		}
		return len(p), k.flushLocked()
	}
	if err := k.flushLocked(); err != nil {
		return 0, err
	}
	return k.Conn.Write(p)
}

func (k *corked) hold() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mu.held = true
	if k.mu.buffer == nil {
		k.mu.buffer = corkBuffers.Get().(*[]byte)
		k.mu.kept = (*k.mu.buffer)[:0]
	}
}

// release writes all that is kept.
func (k *corked) release() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mu.held = false
	err := k.flushLocked()
	k.giveBackLocked()
	return err
}

// tryRelease writes of what is kept as much as the socket takes at once.
func (k *corked) tryRelease() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mu.held = false
	n, failed := 0, error(nil)
	err := k.raw.Write(func(fd uintptr) bool {
		n, failed = writeSome(fd, k.mu.kept)
		return true
	})
	if err == nil {
		err = failed
	}
	k.mu.kept = k.mu.kept[n:]
	k.giveBackLocked()
	return err
}

func (k *corked) flushLocked() error {
	if len(k.mu.kept) == 0 {
		return nil
	}
	_, err := k.Conn.Write(k.mu.kept)
	k.mu.kept = k.mu.kept[:0] // after an error nothing can follow
	return err
}

func (k *corked) giveBackLocked() {
	if len(k.mu.kept) > 0 || k.mu.buffer == nil {
		return
	}
	corkBuffers.Put(k.mu.buffer)
	k.mu.buffer, k.mu.kept = nil, nil
}

// whole tells whether nothing is kept.
func (k *corked) whole() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.mu.kept) == 0
}
