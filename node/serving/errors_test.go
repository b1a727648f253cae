package serving

import (
	"errors"
	"fmt"
	"testing"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/placement"
)

// TestLogStartErrorsReachClients: they know why no log start moves, and are told what to do about it.
func TestLogStartErrorsReachClients(t *testing.T) {
	early := placement.NewTable().View().MayMoveLogStarts()
	for _, c := range []struct{ err, class error }{
		{early, client.ErrUnsupportedVersion},
		{fmt.Errorf("%w: __orders", partition.ErrInternalTopic), client.ErrInvalidTopic},
	} {
		if got := Refusal(c.err); !errors.Is(got, c.class) || got.Message != c.err.Error() {
			t.Errorf("%v: got %v, want %v", c.err, got, c.class)
		}
	}
}
