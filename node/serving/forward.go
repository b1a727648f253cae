package serving

import (
	"context"
	"errors"
	"time"

	"github.com/quorumlog/quorumlog/node/controller"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// controllerRetry is the pause between two looks for a controller.
const controllerRetry = 50 * time.Millisecond

// AtController runs a call where the metadata is led: here, by local, or by forward at the address of the node that leads it. While nobody
// leads it waits, for as long as ctx allows. Errors of local are given their codes.
func AtController[T any](
	ctx context.Context, resolve func(id.Node) (string, bool), local func(context.Context) (T, error), forward func(ctx context.Context, address string) (T, error),
) (T, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultTimeout)
		defer cancel()
	}
	for {
		result, err := local(ctx)
		var elsewhere *controller.NotControllerError
		if !errors.As(err, &elsewhere) || broker.IsForwarded(ctx) {
			return result, coded(err)
		}
		if address, ok := resolve(elsewhere.Leader); ok && elsewhere.Leader != id.NoNode {
			result, err = forward(broker.Forwarded(ctx), address)
			if !WorthAnotherController(err) {
				return result, err
			}
		}
		select {
		case <-ctx.Done():
			return result, Refusal(elsewhere)
		case <-time.After(controllerRetry):
		}
	}
}

// WorthAnotherController tells whether an error of a forwarded call says nothing about the call itself. A broken connection does
// not either, though the call may have taken effect: a topic that was created may then be reported as existing already.
func WorthAnotherController(err error) bool {
	if err == nil {
		return false
	}
	switch kerr.CodeOf(err) {
	case kerr.NotController, kerr.NetworkException, kerr.BrokerNotAvailable:
		return true
	case kerr.Unknown:
		var e *kerr.Error
		return !errors.As(err, &e)
	}
	return false
}

// atController is AtController for a call of the broker's.
func atController[T any](
	ctx context.Context, b *Broker, local func(context.Context) (T, error), forward func(context.Context, broker.Remote) (T, error),
) (T, error) {
	result, err := AtController(ctx, b.o.Nodes.Resolve, local, func(ctx context.Context, address string) (T, error) {
		return forward(ctx, b.o.Nodes.Remote(address))
	})
	return result, coded(err)
}
