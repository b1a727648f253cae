package serving

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/node/controller"
	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// TestAtController is who makes a call, and how often it is passed on.
func TestAtController(t *testing.T) {
	resolve := func(n id.Node) (string, bool) { return "node 2", n == 2 }
	elsewhere := func(n id.Node) error { return &controller.NotControllerError{Leader: n} }
	broken := kerr.Errorf(kerr.NetworkException, "the connection broke")
	for _, test := range []struct {
		name            string
		local, remote   []error // one after the other; the last one again and again
		forwarded       bool
		answer          string
		code            kerr.Code
		leader          id.Node
		locals, remotes int
	}{
		{name: "here", local: []error{nil}, answer: "local", locals: 1},
		{name: "refused here", local: []error{placement.ErrTopicExists}, answer: "local", code: kerr.TopicAlreadyExists, leader: id.NoNode, locals: 1},
		{name: "elsewhere", local: []error{elsewhere(2)}, remote: []error{nil}, answer: "node 2", locals: 1, remotes: 1},
		{
			name: "refused elsewhere", local: []error{elsewhere(2)}, remote: []error{kerr.Errorf(kerr.InvalidConfig, "no")}, answer: "node 2",
			code: kerr.InvalidConfig, leader: id.NoNode, locals: 1, remotes: 1,
		},
		{name: "passed on before", forwarded: true, local: []error{elsewhere(2)}, answer: "local", code: kerr.NotController, leader: 2, locals: 1},
		{name: "nobody leads for a moment", local: []error{elsewhere(id.NoNode), elsewhere(3), nil}, answer: "local", locals: 3},
		{name: "the other is lost", local: []error{elsewhere(2)}, remote: []error{broken, errors.New("raw"), nil}, answer: "node 2", locals: 3, remotes: 3},
		{
			name: "nobody leads", local: []error{elsewhere(id.NoNode)}, answer: "local", code: kerr.NotController, leader: id.NoNode,
			locals: int(defaultTimeout / controllerRetry),
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				locals, remotes := 0, 0
				next := func(errs []error, n *int) error {
					*n++
					return errs[min(*n, len(errs))-1]
				}
				ctx := t.Context()
				if test.forwarded {
					ctx = broker.Forwarded(ctx)
				}
				begun := time.Now()
				answer, err := AtController(ctx, resolve, func(context.Context) (string, error) {
					return "local", next(test.local, &locals)
				}, func(ctx context.Context, address string) (string, error) {
					require.True(t, broker.IsForwarded(ctx))
					return address, next(test.remote, &remotes)
				})
				require.Equal(t, test.answer, answer)
				require.Equal(t, test.code, kerr.CodeOf(err))
				var refused *kerr.Error
				if err != nil {
					require.ErrorAs(t, err, &refused)
					require.Equal(t, test.leader, refused.Leader)
				}
				require.InDelta(t, test.locals, locals, float64(test.locals/100)) // the last look may be at the end of the time
				require.Equal(t, test.remotes, remotes)
				require.LessOrEqual(t, time.Since(begun), defaultTimeout)
			})
		})
	}
}
