package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// testNet is a network of hosts, each with a name space of its own, on a bridge that stands in this process's. The hosts are numbered from
// 1; clients is this process as the cluster's clients are, whose packets can be lost as well, and prober is this process once more, whose
// are not. All of it is gone when the test ends.
type testNet struct {
	t     *testing.T
	name  string // of the bridge, and the beginning of all others
	net   string // first three bytes of the addresses
	hosts int

	mu  sync.Mutex
	cut map[link]bool
}

const (
	clients = 254
	prober  = 253
)

// link is one direction between two hosts.
type link struct{ from, to int }

// both returns the links between a host and others, in both directions.
func both(a int, others ...int) (links []link) {
	for _, b := range others {
		links = append(links, link{a, b}, link{b, a})
	}
	return links
}

// netName is the beginning of the names of everything; the id of the process that made it follows.
const netName = "qlp"

// networks tells whether this machine can have such networks, by a word that says why not.
func networks() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("network name spaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return fmt.Errorf("there is no ip: install iproute2")
	}
	name := fmt.Sprint(netName, os.Getpid(), "-try")
	if err := command("ip", "netns", "add", name); err != nil {
		return err
	}
	defer func() { _ = command("ip", "netns", "del", name) }()
	return command("ip", "-n", name, "rule", "add", "pref", "10", "from", "10.0.0.1", "to", "10.0.0.2", "blackhole")
}

var netOwner = regexp.MustCompile(`\b` + netName + `([0-9]+)(?:-[0-9a-z]+)?\b`)

// sweepNets removes what runs have left that were killed.
func sweepNets() {
	gone := func(pid string) bool {
		n, err := strconv.Atoi(pid)
		return err == nil && unix.Kill(n, 0) == unix.ESRCH
	}
	spaces, _ := exec.Command("ip", "netns", "list").Output()
	for _, m := range netOwner.FindAllStringSubmatch(string(spaces), -1) {
		if gone(m[1]) {
			_ = command("ip", "netns", "del", m[0])
		}
	}
	devices, _ := os.ReadDir("/sys/class/net")
	for _, d := range devices {
		if m := netOwner.FindStringSubmatch(d.Name()); m != nil && gone(m[1]) {
			_ = command("ip", "link", "del", d.Name())
		}
	}
}

func newNet(t *testing.T, hosts int) *testNet {
	t.Helper()
	n := &testNet{t: t, name: fmt.Sprint(netName, os.Getpid()), hosts: hosts, cut: make(map[link]bool)}
	for n.net == "" {
		n.net = fmt.Sprintf("10.211.%d", 1+rand.IntN(250))
		if used, err := net.InterfaceAddrs(); err == nil && strings.Contains(fmt.Sprint(used), n.net+".") {
			n.net = ""
		}
	}
	t.Cleanup(func() {
		for h := 1; h <= hosts; h++ {
			_ = command("ip", "link", "del", n.space(h)) // the name space goes when its last connection is forgotten, and would keep it
			_ = command("ip", "netns", "del", n.space(h))
		}
		_ = command("ip", "link", "del", n.name)
	})
	ip := func(args ...string) {
		t.Helper()
		must(t, command("ip", args...))
	}
	ip("link", "add", n.name, "type", "bridge")
	ip("addr", "add", n.address(clients)+"/24", "dev", n.name)
	ip("addr", "add", n.address(prober)+"/24", "dev", n.name)
	ip("link", "set", n.name, "up")
	for h := 1; h <= hosts; h++ {
		space := n.space(h)
		ip("netns", "add", space)
		ip("link", "add", space, "type", "veth", "peer", "name", "eth0", "netns", space)
		ip("link", "set", space, "master", n.name, "up")
		ip("-n", space, "addr", "add", n.address(h)+"/24", "dev", "eth0")
		ip("-n", space, "link", "set", "lo", "up")
		ip("-n", space, "link", "set", "eth0", "up")
		// Rules are asked before the table of local addresses, for each packet: so what they say of packets that come in holds at once,
		// also for connections that are open.
		ip("-n", space, "rule", "add", "pref", "100", "lookup", "local")
		ip("-n", space, "rule", "del", "pref", "0")
		ip("netns", "exec", space, "sh", "-c", "for f in ip_early_demux tcp_early_demux udp_early_demux; do echo 0 > /proc/sys/net/ipv4/$f; done")
	}
	return n
}

func (n *testNet) address(host int) string { return fmt.Sprintf("%s.%d", n.net, host) }

func (n *testNet) space(host int) string { return fmt.Sprint(n.name, "-", host) }

// lose has packets lost from now on, without a word to anybody, where they come in; a client's where they leave, or come in, at the host.
func (n *testNet) lose(links ...link) { n.set("add", links) }

// heal ends that.
func (n *testNet) heal(links ...link) { n.set("del", links) }

// healAll ends all losses.
func (n *testNet) healAll() {
	n.mu.Lock()
	var links []link
	for l := range n.cut {
		links = append(links, l)
	}
	n.mu.Unlock()
	n.heal(links...)
}

func (n *testNet) set(what string, links []link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	batches := make(map[int]string) // by host, so that all begins at nearly the same time
	for _, l := range links {
		if n.cut[l] == (what == "add") {
			continue
		}
		n.cut[l] = what == "add"
		at := l.to
		if at == clients {
			at = l.from
		}
		batches[at] += fmt.Sprintf("rule %s pref 10 from %s to %s blackhole\n", what, n.address(l.from), n.address(l.to))
	}
	var work sync.WaitGroup
	for host, batch := range batches {
		work.Go(func() {
			c := exec.Command("ip", "-n", n.space(host), "-batch", "-")
			c.Stdin = strings.NewReader(batch)
			if out, err := c.CombinedOutput(); err != nil {
				n.t.Errorf("%s%v: %s", batch, err, out)
			}
		})
	}
	work.Wait()
}
