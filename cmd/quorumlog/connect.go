package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/quorumlog/quorumlog/client"
)

// serversVariable is the environment variable that stands for --servers.
const serversVariable = "QUORUMLOG_SERVERS"

// defaultServer is where a node listens when nothing else is said.
const defaultServer = "127.0.0.1:9192"

// connection is the flags that all commands have which talk to a cluster.
type connection struct {
	servers []string
	timeout time.Duration
	tls     client.TLSFiles
}

func (f *connection) register(cmd *cobra.Command) {
	cmd.PersistentFlags().StringSliceVar(&f.servers, "servers", nil,
		"`host:port,…` of nodes; any one that is alive suffices (default: $"+serversVariable+", else "+defaultServer+")")
	registerTLS(cmd.PersistentFlags(), &f.tls)
	cmd.PersistentFlags().DurationVar(&f.timeout, "timeout", 15*time.Second, "give up on an administrative call after this `duration`")
}

// addresses are the servers by flag, environment or default.
func (f *connection) addresses() []string {
	if len(f.servers) > 0 {
		return f.servers
	}
	if v := os.Getenv(serversVariable); v != "" {
		return strings.Split(v, ",")
	}
	return []string{defaultServer}
}

func (f *connection) connect() (*client.Client, error) {
	var servers []string
	for _, s := range f.addresses() {
		servers = append(servers, strings.TrimSpace(s))
	}
	return client.New(client.Options{Servers: servers, ClientID: "quorumlog-cli", TLSFiles: f.tls})
}

// registerTLS adds the flags with which a client shows who it is.
func registerTLS(flags *pflag.FlagSet, f *client.TLSFiles) {
	for _, v := range []struct {
		to         *string
		name, help string
	}{
		{&f.CA, "tls-ca", "PEM `file` of the authorities that made the nodes' certificates: TLS is used"},
		{&f.Certificate, "tls-cert", "PEM `file` of the certificate that says who this client is"},
		{&f.Key, "tls-key", "PEM `file` of its key"},
	} {
		variable := "QUORUMLOG_" + strings.ToUpper(strings.ReplaceAll(v.name, "-", "_"))
		flags.StringVar(v.to, v.name, os.Getenv(variable), v.help+" (default: $"+variable+")")
	}
}

// admin runs one administrative call.
func (f *connection) admin(cmd *cobra.Command, call func(context.Context, *client.Admin) error) (err error) {
	c, err := f.connect()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	ctx, stop := untilSignal(cmd)
	defer stop()
	return f.bounded(ctx, c, call)
}

// bounded runs a call within the timeout, and makes of its error what the user can do about it.
func (f *connection) bounded(ctx context.Context, c *client.Client, call func(context.Context, *client.Admin) error) error {
	limited, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	err := call(limited, c.Admin())
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return errors.New("interrupted")
	case errors.Is(err, context.DeadlineExceeded):
		cause := withoutDeadline(err)
		return fmt.Errorf("no success within %v at %s: %w: %s", f.timeout, strings.Join(f.addresses(), ","), cause, remedy(cause))
	}
	return err
}

// remedy is what to look at when no node has done what was asked. What TLS found comes as text: nodes and crypto/tls say it, each in its way.
func remedy(cause error) string {
	switch text := cause.Error(); {
	case strings.Contains(text, "tls: certificate required"):
		return "clients need a certificate there: --tls-cert and --tls-key ('quorumlog cert client' makes one)"
	case strings.Contains(text, "does not believe this side's certificate"):
		return "is --tls-cert of an authority that the nodes have in their --tls-ca, and still valid?"
	case strings.Contains(text, "failed to verify certificate"):
		return "is --tls-ca the authority that made the nodes' certificates, and are these for the hosts in --servers?"
	}
	return "are the nodes up, and is --servers right?"
}

// withoutDeadline is the error behind "context deadline exceeded", if there is one.
func withoutDeadline(err error) error {
	text := err.Error()
	if _, cause, ok := strings.Cut(text, "(last error: "); ok {
		return errors.New(strings.TrimSuffix(cause, ")"))
	}
	return err
}

// unknownTopic adds to an error about a topic that does not exist which one may be meant.
func unknownTopic(ctx context.Context, a *client.Admin, topic string, err error) error {
	if !errors.Is(err, client.ErrUnknownTopic) {
		return err
	}
	names, e := a.ListTopics(ctx)
	if e != nil {
		return err
	}
	if near := nearest(names, topic); near != "" {
		return fmt.Errorf("topic %q does not exist: did you mean %q?", topic, near)
	}
	return fmt.Errorf("topic %q does not exist: create it with 'quorumlog topic create %s', or see 'quorumlog topic list'", topic, topic)
}

// untilSignal is the command's context, which SIGINT and SIGTERM end. After the first signal, the next one kills.
func untilSignal(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
