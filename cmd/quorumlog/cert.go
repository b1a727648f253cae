package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorumlog/quorumlog/rpc/auth"
	"github.com/quorumlog/quorumlog/wal/id"
)

// certFlags are what all commands below cert have.
type certFlags struct {
	dir  string
	days int
}

func (f *certFlags) lifetime() (time.Duration, error) {
	const most = 36500
	if f.days < 1 || f.days > most {
		return 0, fmt.Errorf("--days %d: from 1 to %d", f.days, most)
	}
	return time.Duration(f.days) * 24 * time.Hour, nil
}

func (f *certFlags) register(cmd *cobra.Command, days int) {
	cmd.Flags().StringVar(&f.dir, "dir", "certs", "`directory` of the files")
	cmd.Flags().IntVar(&f.days, "days", days, "how many `days` the certificate is valid")
}

func newCertCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cert",
		Short: "Make certificates and a gossip key for a first cluster",
		Long: `Make certificates and a gossip key for a first cluster.

  quorumlog cert ca
  quorumlog cert node --cluster-name prod --node-id 1 host1
  quorumlog cert node --cluster-name prod --node-id 2 host2
  quorumlog cert client alice
  quorumlog cert gossip-key

Files are made below --dir, readable for their owner alone, and never overwritten. Each node gets ca.crt, its own two files and
the gossip key; each client ca.crt and its own two. ca.key stays where it is: whoever has it can be everybody.

Whoever has an authority of his own needs none of this: a node's certificate has the URI quorumlog:/CLUSTER/node/ID among its
alternative names, the host names that clients dial, and is for servers and clients both.`,
		Args: unknownCommand,
		RunE: needSubcommand,
	}
	cmd.AddCommand(newCertCACommand(), newCertNodeCommand(), newCertClientCommand(), newCertGossipKeyCommand())
	return cmd
}

func newCertCACommand() *cobra.Command {
	var f certFlags
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Make an authority: ca.crt and ca.key",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			lifetime, err := f.lifetime()
			if err != nil {
				return err
			}
			_, pair, err := auth.NewAuthority("quorumlog CA", lifetime)
			if err != nil {
				return err
			}
			made, err := f.write("ca", pair)
			if err != nil {
				return err
			}
			return f.say(cmd.OutOrStdout(), lifetime, "An authority: %s, which everybody needs, and %s, which nobody may have.\nNext: quorumlog cert node --dir %s --help",
				made.Certificate, made.Key, f.dir)
		},
	}
	f.register(cmd, 3650)
	return cmd
}

func newCertNodeCommand() *cobra.Command {
	var f certFlags
	var cluster string
	var number int
	cmd := &cobra.Command{
		Use:   "node HOST...",
		Short: "Make a node's certificate, for the host names and addresses under which clients dial it",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("cert node needs the host of the node's advertised address, and any other that clients dial: names or IP addresses")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, hosts []string) error {
			if number < 0 || number > math.MaxInt32 {
				return errors.New("--node-id is missing: the number that the node has in the cluster")
			}
			for _, host := range hosts {
				if strings.ContainsAny(host, ":/ ") && !strings.Contains(host, "::") {
					return fmt.Errorf("%q is not a host: names and addresses have no port here", host)
				}
			}
			authority, err := f.authority()
			if err != nil {
				return err
			}
			lifetime, err := f.lifetime()
			if err != nil {
				return err
			}
			pair, err := authority.Node(cluster, id.Node(number), hosts, lifetime)
			if err != nil {
				return err
			}
			made, err := f.write(fmt.Sprintf("node-%d", number), pair)
			if err != nil {
				return err
			}
			return f.say(cmd.OutOrStdout(), lifetime, "Node %d of cluster %s at %s: %s and %s.\nStart it with --node-id %d --cluster-name %s --tls-ca %s --tls-cert %s --tls-key %s",
				number, cluster, strings.Join(hosts, ", "), made.Certificate, made.Key, number, cluster, f.at("ca.crt"), made.Certificate, made.Key)
		},
	}
	f.register(cmd, 365)
	cmd.Flags().StringVar(&cluster, "cluster-name", "quorumlog", "`name` of the cluster, as the node is given it")
	cmd.Flags().IntVar(&number, "node-id", noNodeID, "`number` of the node (required)")
	return cmd
}

func newCertClientCommand() *cobra.Command {
	var f certFlags
	cmd := &cobra.Command{
		Use:   "client NAME",
		Short: "Make a client's certificate: of the principal User:CN=NAME",
		Args:  oneArgument("name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if name == "" || strings.ContainsAny(name, `/\`) || strings.HasPrefix(name, ".") {
				return fmt.Errorf("%q: a name is the name of a file, too", name)
			}
			authority, err := f.authority()
			if err != nil {
				return err
			}
			lifetime, err := f.lifetime()
			if err != nil {
				return err
			}
			pair, err := authority.Client(name, lifetime)
			if err != nil {
				return err
			}
			made, err := f.write("client-"+name, pair)
			if err != nil {
				return err
			}
			return f.say(cmd.OutOrStdout(), lifetime, "User:CN=%s: %s and %s.\nUse them with --tls-ca %s --tls-cert %s --tls-key %s",
				name, made.Certificate, made.Key, f.at("ca.crt"), made.Certificate, made.Key)
		},
	}
	f.register(cmd, 365)
	return cmd
}

func newCertGossipKeyCommand() *cobra.Command {
	var f certFlags
	cmd := &cobra.Command{
		Use:   "gossip-key",
		Short: "Make a key that encrypts the gossip: gossip.key",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			key := make([]byte, 32)
			_, _ = rand.Read(key)
			name, err := f.create("gossip.key", []byte(base64.StdEncoding.EncodeToString(key)+"\n"))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "A gossip key: %s. All nodes are started with it: --gossip-key-file %s\n", name, name)
			return err
		},
	}
	cmd.Flags().StringVar(&f.dir, "dir", "certs", "`directory` of the file")
	return cmd
}

func (f *certFlags) at(name string) string { return filepath.Join(f.dir, name) }

// authority takes up the one that cert ca has made.
func (f *certFlags) authority() (*auth.Authority, error) {
	var pair auth.Pair
	for name, to := range map[string]*[]byte{"ca.crt": &pair.Certificate, "ca.key": &pair.Key} {
		content, err := os.ReadFile(f.at(name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s is not there: make an authority first, with quorumlog cert ca --dir %s", f.at(name), f.dir)
		}
		if err != nil {
			return nil, err
		}
		*to = content
	}
	a, err := auth.OpenAuthority(pair)
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", f.at("ca.crt"), f.at("ca.key"), err)
	}
	return a, nil
}

// write makes the two files of a pair, the key first: a certificate without its key is of no use.
func (f *certFlags) write(name string, pair auth.Pair) (made auth.Files, err error) {
	if _, err := os.Lstat(f.at(name + ".crt")); err == nil {
		return made, exists(f.at(name + ".crt"))
	}
	if made.Key, err = f.create(name+".key", pair.Key); err != nil {
		return made, err
	}
	made.Certificate, err = f.create(name+".crt", pair.Certificate)
	return made, err
}

func (f *certFlags) create(name string, content []byte) (string, error) {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return "", err
	}
	path := f.at(name)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return "", exists(path)
	}
	if err != nil {
		return "", err
	}
	_, err = file.Write(content)
	return path, errors.Join(err, file.Close())
}

func exists(path string) error {
	return fmt.Errorf("%s exists and is not overwritten: move it away, or name another directory with --dir", path)
}

func (f *certFlags) say(out io.Writer, lifetime time.Duration, format string, args ...any) error {
	_, err := fmt.Fprintf(out, format+"\nValid until %s.\n", append(args, time.Now().Add(lifetime).Format(time.DateOnly))...)
	return err
}
