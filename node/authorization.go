package node

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/quorumlog/quorumlog/node/authorizer"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/broker/acl"
)

// AuthorizationOptions say who may do what.
type AuthorizationOptions struct {
	// Authorizer says what decides it.
	Authorizer AuthorizerKind
	// SuperUsers may do everything, whatever the permissions say.
	SuperUsers []acl.Principal
	// MissingACLs says what holds for resources for which there is no permission at all.
	MissingACLs authorizer.Missing
}

// AuthorizerKind names an authorizer.
type AuthorizerKind int

const (
	// NoAuthorizer lets everybody do everything.
	NoAuthorizer AuthorizerKind = iota
	// ACLAuthorizer goes by the permissions in the metadata.
	ACLAuthorizer
)

func (s AuthorizationOptions) authorizer(rules func() *acl.Set, current func() bool, logger *slog.Logger) broker.Authorizer {
	if s.Authorizer == NoAuthorizer {
		return broker.AllowAll{}
	}
	return authorizer.New(authorizer.Options{SuperUsers: s.SuperUsers, Missing: s.MissingACLs, Rules: rules, Current: current, Logger: logger})
}

// validate refuses what would be worth nothing. The node that a client is connected to asks for his permissions, and what a node passes on is
// not asked about again; without certificates everybody can say that he is a node that passes a call on.
func (s AuthorizationOptions) validate(who SecurityOptions) error {
	switch {
	case s.Authorizer != NoAuthorizer && s.Authorizer != ACLAuthorizer:
		return fmt.Errorf("authorizer %d: there are none and acl (--authorizer)", s.Authorizer)
	case s.Authorizer != NoAuthorizer && who.TLS.None():
		return errors.New("--authorizer acl without TLS protects nothing: everybody is User:ANONYMOUS, and a node whoever says so; " +
			"give the nodes certificates (--tls-ca, --tls-cert, --tls-key; 'quorumlog cert' makes them)")
	case s.Authorizer == NoAuthorizer && len(s.SuperUsers) > 0:
		return errors.New("--super-users without --authorizer acl: everybody may do everything")
	case s.Authorizer == NoAuthorizer && s.MissingACLs != authorizer.DenyMissing:
		return errors.New("--allow-everyone-if-no-acl-found without --authorizer acl: everybody may do everything")
	}
	return nil
}
