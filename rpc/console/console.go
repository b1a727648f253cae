// Package console serves a node's HTTP port: /metrics for Prometheus, /healthz and /readyz for whoever keeps the process running
// and sends it traffic.
package console

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Options are what a console shows. All but MaxConnections are required.
type Options struct {
	Gatherer prometheus.Gatherer
	// Ready returns nil when the node should be sent traffic, else why not.
	Ready  func() error
	Logger *slog.Logger
	// MaxConnections is how many connections are open at once, 64 by default; more are closed.
	MaxConnections int
}

// Server serves one address until it is closed.
type Server struct {
	listener net.Listener
	http     *http.Server
	done     sync.WaitGroup
}

// Limits of a connection: nothing that is asked here is large or slow, and silent connections must not pile up.
const (
	headerTimeout  = 5 * time.Second
	idleTimeout    = 30 * time.Second
	writeTimeout   = 30 * time.Second
	maxHeaderBytes = 16 << 10

	defaultConnections = 64
)

// few closes the connections above its limit at once: each is a file that the node may need for its data.
type few struct {
	net.Listener
	limit int
	open  atomic.Int64
}

// Accept implements net.Listener.
func (f *few) Accept() (net.Conn, error) {
	for {
		c, err := f.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if f.open.Add(1) <= int64(f.limit) {
			return &counted{Conn: c, of: f}, nil
		}
		f.open.Add(-1)
		_ = c.Close()
	}
}

type counted struct {
	net.Conn
	of   *few
	once sync.Once
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.once.Do(func() { c.of.open.Add(-1) })
	return c.Conn.Close()
}

// Serve listens on address and serves in the background.
func Serve(ctx context.Context, address string, o Options) (*Server, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if o.MaxConnections <= 0 {
		o.MaxConnections = defaultConnections
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Gatherer, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := o.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	s := &Server{listener: listener, http: &http.Server{
		Handler: mux, ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeaderBytes, ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}}
	s.done.Go(func() {
		if err := s.http.Serve(&few{Listener: listener, limit: o.MaxConnections}); !errors.Is(err, http.ErrServerClosed) {
			o.Logger.Error("the metrics port failed", "reason", err)
		}
	})
	return s, nil
}

// Addr returns the address that the server listens on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close lets requests in progress finish until ctx ends.
func (s *Server) Close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close()
	}
	s.done.Wait()
	return err
}
