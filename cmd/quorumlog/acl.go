package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/rpc/broker/acl"
)

// aclCommand is the flags that its subcommands share.
type aclCommand struct {
	conn connection
	out  output
}

func newACLCommand() *cobra.Command {
	c := &aclCommand{}
	cmd := &cobra.Command{
		Use:   "acl",
		Short: "Say who may do what",
		Long: `Say who may do what. It counts where nodes run with --authorizer acl: nobody may do anything there that no ACL allows,
but super users. A DENY wins over every ALLOW. Who a client is, is the subject of its certificate: User:CN=alice with what
'quorumlog cert client alice' makes.

  quorumlog acl add --allow-principal User:CN=alice --producer --topic orders
  quorumlog acl add --allow-principal User:CN=bob --operation Read --topic orders
  quorumlog acl add --allow-principal User:CN=carol --operation All --topic carol- --resource-pattern-type prefixed
  quorumlog acl add --deny-principal User:* --deny-host 10.0.0.9 --operation Write --topic orders`,
		Args: unknownCommand,
		RunE: needSubcommand,
	}
	c.conn.register(cmd)
	c.out.register(cmd)
	cmd.AddCommand(c.add(), c.remove(), c.list())
	return cmd
}

// aclFlags are the flags of kafka-acls that say which ACLs are meant.
type aclFlags struct {
	topics, groups, transactionalIDs           []string
	cluster, producer, consumer, idempotent    bool
	allowed, denied, allowedHosts, deniedHosts []string
	operations                                 []string
	pattern                                    string
	force                                      bool
}

func (f *aclFlags) register(cmd *cobra.Command, pattern string) {
	flags := cmd.Flags()
	flags.StringArrayVar(&f.topics, "topic", nil, "`name` of a topic, or * for all; may be repeated")
	flags.StringArrayVar(&f.groups, "group", nil, "`name` of a consumer group, or * for all; may be repeated")
	flags.StringArrayVar(&f.transactionalIDs, "transactional-id", nil, "transactional `id`, or * for all; may be repeated")
	flags.BoolVar(&f.cluster, "cluster", false, "the cluster itself")
	flags.StringVar(&f.pattern, "resource-pattern-type", pattern, "`type` of the names: literal; prefixed: all that begin so; to list and remove also any and match (all that counts for a name)")
}

func (f *aclFlags) registerEntries(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVar(&f.allowed, "allow-principal", nil, "`principal` who may, such as User:CN=alice, or User:* for everybody; may be repeated")
	flags.StringArrayVar(&f.denied, "deny-principal", nil, "`principal` who may not; may be repeated")
	flags.StringArrayVar(&f.allowedHosts, "allow-host", nil, "IP `address` from which those of --allow-principal may (default: any)")
	flags.StringArrayVar(&f.deniedHosts, "deny-host", nil, "IP `address` from which those of --deny-principal may not (default: any)")
	flags.StringArrayVar(&f.operations, "operation", nil, "`what` they may do: All, Read, Write, Create, Delete, Alter, Describe, DescribeConfigs, AlterConfigs, IdempotentWrite, ClusterAction, TwoPhaseCommit; may be repeated (default All)")
	flags.BoolVar(&f.producer, "producer", false, "all that a producer needs, in the place of --operation")
	flags.BoolVar(&f.consumer, "consumer", false, "all that a consumer needs, in the place of --operation")
	flags.BoolVar(&f.idempotent, "idempotent", false, "with --producer: what an idempotent one needs")
}

// patterns are the resources of the flags.
func (f *aclFlags) patterns() ([]acl.Pattern, error) {
	kind, err := acl.ParsePatternType(f.pattern)
	if err != nil {
		return nil, fmt.Errorf("--resource-pattern-type: %w", err)
	}
	var list []acl.Pattern
	for _, named := range []struct {
		resource acl.ResourceType
		names    []string
	}{{acl.Topic, f.topics}, {acl.Group, f.groups}, {acl.TransactionalID, f.transactionalIDs}} {
		for _, name := range named.names {
			list = append(list, acl.Pattern{Type: named.resource, Name: name, Kind: kind})
		}
	}
	if f.cluster {
		list = append(list, acl.Pattern{Type: acl.Cluster, Name: acl.ClusterName, Kind: acl.Literal})
	}
	return list, nil
}

// operationsOn are what the flags say about resources of a type.
func (f *aclFlags) operationsOn(t acl.ResourceType) ([]acl.Operation, error) {
	var list []acl.Operation
	if f.producer {
		switch t {
		case acl.Topic:
			list = append(list, acl.Write, acl.Describe, acl.Create)
		case acl.TransactionalID:
			list = append(list, acl.Write, acl.Describe)
		case acl.Cluster:
			list = append(list, acl.IdempotentWrite)
		}
	}
	if f.consumer {
		switch t {
		case acl.Topic:
			list = append(list, acl.Read, acl.Describe)
		case acl.Group:
			list = append(list, acl.Read)
		}
	}
	if f.producer || f.consumer {
		slices.Sort(list)
		return slices.Compact(list), nil
	}
	for _, text := range f.operations {
		op, err := acl.ParseOperation(text)
		if err != nil {
			return nil, fmt.Errorf("--operation: %w", err)
		}
		list = append(list, op)
	}
	if len(list) == 0 {
		list = append(list, acl.All)
	}
	return list, nil
}

// entries are what the flags say about resources of a type.
func (f *aclFlags) entries(t acl.ResourceType) ([]acl.Entry, error) {
	operations, err := f.operationsOn(t)
	if err != nil {
		return nil, err
	}
	var list []acl.Entry
	for _, who := range []struct {
		principals, hosts []string
		permission        acl.Permission
	}{{f.allowed, f.allowedHosts, acl.Allow}, {f.denied, f.deniedHosts, acl.Deny}} {
		if len(who.hosts) == 0 {
			who.hosts = []string{acl.Wildcard}
		}
		for _, text := range who.principals {
			principal, err := acl.ParsePrincipal(text)
			if err != nil {
				return nil, err
			}
			for _, host := range who.hosts {
				for _, op := range operations {
					list = append(list, acl.Entry{Principal: principal, Host: host, Operation: op, Permission: who.permission})
				}
			}
		}
	}
	return list, nil
}

// check returns what is wrong with the flags together.
func (f *aclFlags) check() error {
	switch {
	case (f.producer || f.consumer) && len(f.operations) > 0:
		return errors.New("--operation beside --producer or --consumer: these say what may be done")
	case (f.producer || f.consumer) && len(f.denied) > 0:
		return errors.New("--deny-principal with --producer or --consumer: deny single operations")
	case f.idempotent && !f.producer:
		return errors.New("--idempotent without --producer")
	case f.consumer && (len(f.topics) == 0 || len(f.groups) == 0):
		return errors.New("--consumer needs --topic and --group")
	case f.producer && len(f.topics) == 0:
		return errors.New("--producer needs --topic")
	case len(f.allowedHosts) > 0 && len(f.allowed) == 0:
		return errors.New("--allow-host without --allow-principal")
	case len(f.deniedHosts) > 0 && len(f.denied) == 0:
		return errors.New("--deny-host without --deny-principal")
	}
	return nil
}

// bindings are the ACLs that the flags name one by one.
func (f *aclFlags) bindings() ([]client.ACL, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	if f.idempotent {
		f.cluster = true
	}
	patterns, err := f.patterns()
	if err != nil {
		return nil, err
	}
	if len(patterns) == 0 {
		return nil, errors.New("no resource: name some with --topic, --group, --transactional-id or --cluster")
	}
	var list []client.ACL
	for _, p := range patterns {
		entries, err := f.entries(p.Type)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			b := client.ACL{Pattern: p, Entry: e}
			if err := b.Check(); err != nil {
				return nil, err
			}
			list = append(list, b)
		}
	}
	return list, nil
}

func (c *aclCommand) add() *cobra.Command {
	var f aclFlags
	cmd := &cobra.Command{
		Use:   "add",
		Short: "Allow or deny somebody something",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(f.allowed)+len(f.denied) == 0 {
				return errors.New("nobody is named: see --allow-principal and --deny-principal")
			}
			list, err := f.bindings()
			if err != nil {
				return err
			}
			return c.conn.admin(cmd, func(ctx context.Context, a *client.Admin) error {
				if err := a.CreateACLs(ctx, list...); err != nil {
					return refusal(err)
				}
				return c.print(cmd, "Adding ACLs for resource `%s`:", list)
			})
		},
	}
	f.register(cmd, "literal")
	f.registerEntries(cmd)
	return cmd
}

func (c *aclCommand) remove() *cobra.Command {
	var f aclFlags
	cmd := &cobra.Command{
		Use:   "remove",
		Short: "Take ACLs away",
		Long: `Take ACLs away: those that the flags name, as for add. Without a principal all ACLs of the resources go, and without a resource
all there are; both need --force.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			filters, err := f.filters()
			if err != nil {
				return err
			}
			return c.conn.admin(cmd, func(ctx context.Context, a *client.Admin) error {
				gone, err := a.DeleteACLs(ctx, filters...)
				if err != nil {
					return refusal(err)
				}
				return c.print(cmd, "Removed ACLs for resource `%s`:", gone)
			})
		},
	}
	f.register(cmd, "literal")
	f.registerEntries(cmd)
	cmd.Flags().BoolVar(&f.force, "force", false, "take away more than single ACLs")
	return cmd
}

// filters are what the flags select to be removed.
func (f *aclFlags) filters() ([]client.ACLFilter, error) {
	if len(f.allowed)+len(f.denied) > 0 {
		list, err := f.bindings()
		filters := make([]client.ACLFilter, len(list))
		for i, b := range list {
			filters[i] = client.ACLFilter{
				Type: b.Type, Name: b.Name, Kind: b.Kind, Principal: b.Principal.String(), Host: b.Host, Operation: b.Operation, Permission: b.Permission,
			}
		}
		return filters, err
	}
	if len(f.operations) > 0 || f.producer || f.consumer {
		return nil, errors.New("nobody is named: see --allow-principal and --deny-principal")
	}
	if !f.force {
		return nil, errors.New("this takes away all ACLs of the resources, of everybody: add --force if that is meant")
	}
	return f.resourceFilters()
}

// resourceFilters select all ACLs of the resources of the flags; of all, if there are none.
func (f *aclFlags) resourceFilters() ([]client.ACLFilter, error) {
	patterns, err := f.patterns()
	if err != nil || len(patterns) == 0 {
		return []client.ACLFilter{{}}, err
	}
	filters := make([]client.ACLFilter, len(patterns))
	for i, p := range patterns {
		filters[i] = client.ACLFilter{Type: p.Type, Name: p.Name, Kind: p.Kind}
	}
	return filters, nil
}

func (c *aclCommand) list() *cobra.Command {
	var f aclFlags
	var principals []string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List ACLs, all if nothing is named",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			filters, err := f.resourceFilters()
			if err != nil {
				return err
			}
			return c.conn.admin(cmd, func(ctx context.Context, a *client.Admin) error {
				var all []client.ACL
				if len(principals) == 0 {
					principals = []string{""}
				}
				for _, filter := range filters {
					for _, filter.Principal = range principals {
						some, err := a.DescribeACLs(ctx, filter)
						if err != nil {
							return refusal(err)
						}
						all = append(all, some...)
					}
				}
				slices.SortFunc(all, acl.Compare)
				return c.print(cmd, "Current ACLs for resource `%s`:", slices.Compact(all))
			})
		},
	}
	f.register(cmd, "any")
	cmd.Flags().StringArrayVar(&principals, "principal", nil, "only ACLs of this `principal`; may be repeated")
	return cmd
}

// aclReport is an ACL as JSON has it.
type aclReport struct {
	Resource   string `json:"resource_type"`
	Name       string `json:"name"`
	Pattern    string `json:"pattern_type"`
	Principal  string `json:"principal"`
	Host       string `json:"host"`
	Operation  string `json:"operation"`
	Permission string `json:"permission"`
}

// print writes ACLs as kafka-acls does, under a heading for each pattern.
func (c *aclCommand) print(cmd *cobra.Command, heading string, acls []client.ACL) error {
	report := make([]aclReport, len(acls))
	for i, b := range acls {
		report[i] = aclReport{
			b.Type.String(), b.Name, b.Kind.String(), b.Principal.String(), b.Host, b.Operation.String(), b.Permission.String(),
		}
	}
	return c.out.print(cmd.OutOrStdout(), report, func(w io.Writer) error {
		for i, b := range acls {
			if i == 0 || acls[i-1].Pattern != b.Pattern {
				fmt.Fprintf(w, heading+"\n", b.Pattern)
			}
			fmt.Fprintf(w, "\t%s\n", b.Entry)
			if i == len(acls)-1 || acls[i+1].Pattern != b.Pattern {
				fmt.Fprintln(w)
			}
		}
		return nil
	})
}
