package kerr_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/quorumlog/quorumlog/rpc/kerr"
)

func TestClass(t *testing.T) {
	denied := kerr.NewClass("not authorized", kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed)
	for _, test := range []struct {
		err  error
		want bool
	}{
		{kerr.Errorf(kerr.TopicAuthorizationFailed, "no"), true},
		{fmt.Errorf("produce: %w", kerr.Errorf(kerr.GroupAuthorizationFailed, "no")), true},
		{kerr.Errorf(kerr.UnknownTopicOrPartition, "no"), false},
		{fmt.Errorf("%w: by the client", denied), true},
		{errors.New("not authorized"), false},
		{nil, false},
	} {
		if got := errors.Is(test.err, denied); got != test.want {
			t.Errorf("%v: %v", test.err, got)
		}
	}
	if code := kerr.CodeOf(denied); code != kerr.Unknown {
		t.Errorf("a class has the code %v", code)
	}
}
