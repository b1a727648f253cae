package main

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// diskKind says what a node's disk is made of.
type diskKind string

const (
	tmpfs diskKind = "tmpfs"
	ext4  diskKind = "ext4"    // in a file, through a loop device
	fuse  diskKind = "faultfs" // a directory, shown by the program that faultfsVariable names
)

// faultfsVariable names a program that shows a directory through FUSE and fails as it is told to, over a unix socket: "clear", or
// "rule OPS WHAT [PATTERN]", where OPS is all or some of read,write,sync,…, and WHAT is eio, erofs, hang, delay=1s or rot.
const faultfsVariable = "QUORUMLOG_FAULTFS"

// disksDirectory is the beginning of the name of the directories with mount points; the id of the process that made it follows.
const disksDirectory = "quorumlog-disks-"

// testDisk is a file system of its own. What a test does to it is undone when the test ends.
type testDisk struct {
	t       *testing.T
	kind    diskKind
	mount   string // mount point
	image   string // ext4: file behind the loop device
	control string // faultfs: socket
	thaw    func() // not nil: it is frozen
}

// data is a node's directory. It is not the mount point, where others have files, too.
func (d *testDisk) data() string { return filepath.Join(d.mount, "data") }

// command runs a tool of the system.
func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

func newDisk(t *testing.T, kind diskKind, dir string, number int, size int64) *testDisk {
	t.Helper()
	d := &testDisk{t: t, kind: kind, mount: filepath.Join(dir, fmt.Sprint("disk-", number))}
	must(t, os.MkdirAll(d.mount, 0o755))
	t.Cleanup(func() { unmount(d.mount) })
	switch kind {
	case tmpfs:
		must(t, command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", size), "quorumlog-test", d.mount))
	case ext4:
		d.image = filepath.Join(dir, fmt.Sprint("image-", number))
		must(t, os.WriteFile(d.image, nil, 0o644))
		must(t, os.Truncate(d.image, size))
		must(t, command("mkfs.ext4", "-q", "-F", "-m", "0", d.image))
		d.mountImage()
		_ = d.throttle(0) // by a run that was killed
		t.Cleanup(func() { _ = d.throttle(0) })
	case fuse:
		d.control = filepath.Join(dir, fmt.Sprint("control-", number))
		backing := filepath.Join(dir, fmt.Sprint("backing-", number))
		must(t, os.Mkdir(backing, 0o755))
		p := start(t, exec.Command(os.Getenv(faultfsVariable), "-backing", backing, "-mount", d.mount, "-control", d.control))
		eventually(t, "faultfs", func() bool { return strings.Contains(p.out.String(), "ready") || !p.alive() })
		if !p.alive() {
			t.Fatalf("faultfs: %s", p.lastWords())
		}
		t.Cleanup(func() { unmount(d.mount) }) // before it is killed
	}
	return d
}

// mountImage mounts an ext4, again after a power loss or an error.
func (d *testDisk) mountImage() {
	d.t.Helper()
	must(d.t, command("mount", "-o", "loop,noatime,errors=remount-ro", d.image, d.mount))
}

// unmount ends a mount whatever state it is in. Loop devices go with it.
func unmount(dir string) {
	gone := func() bool { return !slices.Contains(mounts(), dir) || command("umount", dir) == nil }
	if !inTime(10*time.Second, gone) { // a process that was killed may take a while
		_ = command("umount", "-l", dir)
	}
}

// mounts lists the mount points.
func mounts() []string {
	data, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return nil
	}
	var points []string
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 1 {
			points = append(points, fields[1])
		}
	}
	return points
}

var owner = regexp.MustCompile(`^(.*/` + disksDirectory + `([0-9]+)-[^/]*)/`)

// sweep removes what runs have left that were killed.
func sweep() {
	dirs := make(map[string]bool)
	for _, point := range slices.Backward(mounts()) {
		m := owner.FindStringSubmatch(point)
		if m == nil {
			continue
		}
		if pid, err := strconv.Atoi(m[2]); err != nil || unix.Kill(pid, 0) == nil {
			continue
		}
		_ = command("fsfreeze", "-u", point)
		_ = command("umount", "-l", point)
		dirs[m[1]] = true
	}
	for dir := range dirs {
		_ = os.RemoveAll(dir)
	}
}

// filler is the file of somebody else that takes all space.
func (d *testDisk) filler() string { return filepath.Join(d.mount, "filler") }

// fill takes all space, once: what the node frees afterwards is free.
func (d *testDisk) fill() {
	d.t.Helper()
	f, err := os.OpenFile(d.filler(), os.O_CREATE|os.O_WRONLY, 0o644)
	must(d.t, err)
	defer f.Close()
	size := int64(0)
	for _, step := range []int64{64 << 20, 1 << 20, 64 << 10, 4 << 10} {
		for {
			err := unix.Fallocate(int(f.Fd()), 0, size, step)
			if err == nil {
				size += step
			} else if !errors.Is(err, unix.EINTR) {
				break
			}
		}
	}
}

// free gives the space back.
func (d *testDisk) free() { must(d.t, os.Remove(d.filler())) }

// freeze lets every write wait, until thaw. The program that has frozen the file system thaws it when this one dies.
func (d *testDisk) freeze() {
	d.t.Helper()
	c := exec.Command("sh", "-c", `fsfreeze -f "$1" && echo frozen; read -r line; fsfreeze -u "$1"`, "sh", d.mount)
	in, err := c.StdinPipe()
	must(d.t, err)
	out, err := c.StdoutPipe()
	must(d.t, err)
	must(d.t, c.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "frozen\n" {
		d.t.Errorf("freezing %s: %q, %v", d.mount, line, err)
	}
	d.thaw = func() {
		d.thaw = nil
		_ = in.Close()
		if err := c.Wait(); err != nil {
			d.t.Errorf("thawing %s: %v", d.mount, err)
		}
	}
	d.t.Cleanup(func() {
		if d.thaw != nil {
			d.thaw()
		}
	})
}

// failReadOnly lets ext4 meet an error, as on a bad block: it is read-only from then on, also for files that are open. Only mounting it
// again ends that.
func (d *testDisk) failReadOnly() { must(d.t, command("mount", "-o", "remount,abort", d.mount)) }

// cutPower shuts ext4 down as a power failure does: what has not reached the device never will. Only mounting it again ends that.
func (d *testDisk) cutPower() {
	const shutDown, noLogFlush = 0x8004587d, 2
	dir, err := os.Open(d.mount)
	must(d.t, err)
	defer dir.Close()
	must(d.t, unix.IoctlSetPointerInt(int(dir.Fd()), shutDown, noLogFlush))
}

// remount mounts ext4 again. Nobody may use it.
func (d *testDisk) remount() {
	unmount(d.mount)
	d.mountImage()
}

// throttle bounds the writes a second to the loop device; 0: no bound. The bound belongs to the device: it outlives mount and test.
func (d *testDisk) throttle(perSecond int) error {
	const file = "/sys/fs/cgroup/blkio/blkio.throttle.write_iops_device"
	var st unix.Stat_t
	if err := unix.Stat(d.mount, &st); err != nil {
		return err
	}
	return os.WriteFile(file, fmt.Appendf(nil, "%d:%d %d", unix.Major(st.Dev), unix.Minor(st.Dev), perSecond), 0)
}

// tell gives faultfs commands.
func (d *testDisk) tell(lines ...string) {
	d.t.Helper()
	c, err := net.Dial("unix", d.control)
	must(d.t, err)
	defer c.Close()
	answers := bufio.NewReader(c)
	for _, line := range lines {
		_, err := fmt.Fprintln(c, line)
		must(d.t, err)
		if answer, err := answers.ReadString('\n'); err != nil || strings.HasPrefix(answer, "error") {
			d.t.Fatalf("faultfs: %s: %s, %v", line, answer, err)
		}
	}
}

// files lists the node's files that match a pattern below its data directory, the largest first.
func (d *testDisk) files(pattern string) []string {
	names, err := filepath.Glob(filepath.Join(d.data(), pattern))
	must(d.t, err)
	size := func(name string) int64 {
		if info, err := os.Stat(name); err == nil {
			return info.Size()
		}
		return 0
	}
	slices.SortFunc(names, func(a, b string) int { return int(size(b) - size(a)) })
	return names
}

// rot flips n bits, each in a block that is not empty, on the disk: the kernel forgets what it has of the file.
func (d *testDisk) rot(random *rand.Rand, name string, n int) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	const block = 4096
	var full []int
	for at := 0; at < len(data); at += block {
		if slices.ContainsFunc(data[at:min(at+block, len(data))], func(b byte) bool { return b != 0 }) {
			full = append(full, at)
		}
	}
	for range n {
		if len(full) == 0 {
			return fmt.Errorf("%s holds nothing", name)
		}
		at := full[random.IntN(len(full))]
		for tries := 0; ; tries++ { // a byte that holds something, not the padding of a block
			if i := at + random.IntN(min(block, len(data)-at)); data[i] != 0 || tries > 1000 {
				data[i] ^= 1 << random.IntN(8)
				if _, err := f.WriteAt(data[i:i+1], int64(i)); err != nil {
					return err
				}
				break
			}
		}
	}
	return errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
