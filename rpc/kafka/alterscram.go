package kafka

// AlterUserScramCredentials 0. Each user is changed for himself, in the order in which they are named. No deviations. What is kept of a salted
// password is enough to tell whether somebody knows it, and not the salted password itself.

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
)

func answerAlterScram(c *call, r kmsg.Request) kmsg.Response {
	req := r.(*kmsg.AlterUserSCRAMCredentialsRequest)
	resp := req.ResponseKind().(*kmsg.AlterUserSCRAMCredentialsResponse)
	ctx, cancel := c.within(0)
	defer cancel()
	changes := make(map[string]func() (broker.UserChange, error))
	add := func(user string, change func() (broker.UserChange, error)) {
		if _, twice := changes[user]; twice {
			changes[user] = func() (change broker.UserChange, err error) {
				return change, kerr.Errorf(kerr.DuplicateResource, "A user credential cannot be altered twice in the same request")
			}
			return
		}
		changes[user] = change
		answer := kmsg.NewAlterUserSCRAMCredentialsResponseResult()
		answer.User = user
		resp.Results = append(resp.Results, answer)
	}
	for _, d := range req.Deletions {
		add(d.Name, func() (broker.UserChange, error) {
			return broker.UserChange{Delete: []broker.UserCredential{{User: d.Name, Mechanism: broker.ScramMechanism(d.Mechanism)}}}, nil
		})
	}
	for i := range req.Upsertions {
		add(req.Upsertions[i].Name, func() (broker.UserChange, error) {
			credential, err := scramCredential(&req.Upsertions[i])
			return broker.UserChange{Upsert: []broker.ScramCredential{credential}}, err
		})
	}
	for i := range resp.Results {
		answer := &resp.Results[i]
		answer.ErrorCode, answer.ErrorMessage = refusal(c.alterUser(ctx, changes[answer.User]))
	}
	return resp
}

func (c *call) alterUser(ctx context.Context, change func() (broker.UserChange, error)) error {
	wanted, err := change()
	if err != nil {
		return err
	}
	return c.broker().AlterUsers(ctx, c.caller, wanted)
}

// scramCredential makes of a salted password what is to be kept.
func scramCredential(u *kmsg.AlterUserSCRAMCredentialsRequestUpsertion) (broker.ScramCredential, error) {
	credential := broker.ScramCredential{
		UserCredential: broker.UserCredential{User: u.Name, Mechanism: broker.ScramMechanism(u.Mechanism), Iterations: int(u.Iterations)}, Salt: u.Salt,
	}
	newHash := credential.Mechanism.Hash()
	switch {
	case newHash == nil:
		return credential, kerr.Errorf(kerr.UnsupportedSASLMechanism, "Unknown SCRAM mechanism")
	case len(u.SaltedPassword) != newHash().Size():
		return credential, kerr.Errorf(kerr.UnacceptableCredential, "A salted password of %d bytes: the mechanism makes %d", len(u.SaltedPassword), newHash().Size())
	}
	credential.StoredKey, credential.ServerKey = broker.ScramKeys(u.SaltedPassword, newHash)
	return credential, nil
}
