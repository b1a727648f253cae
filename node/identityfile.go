package node

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/quorumlog/quorumlog/wal/disk"
)

// The identity is kept twice, in two files of one block each:
//
//	# The identity of this data directory. Written by quorumlog; do not edit.
//	version=2
//	cluster.id=…                key=value, as in identity.text
//	revision=12                 how many times it was written: the larger one is newer
//	checksum=1a2b3c4d           CRC-32C of all before this line
//	                            lines of blanks, to the end of the block
//
// A start counts itself, so it writes, and it must be able to on a full disk: what exists is overwritten where it is, which takes no
// space. (A new file in the place of the old one is safe by itself, and takes a block.) A write in place may be torn, by a crash or a
// bad sector. So one file is written after the other, each one synced, and neither before the other is known to be whole and durable:
//
//   - Both are read, and the better one is written over one that is damaged, old or missing, once it has been synced itself: whoever
//     wrote it may have died between write and sync, and what was read came from a cache. So may the names have.
//   - Only then the first file is written, then the second. A crash at any point leaves one of them whole, with the old identity or the
//     new one; and the caller has not been told that the new one counts before both are written.
//   - A file that is missing is made beside its name and renamed: there is no half a file in a directory that has one.
//
// So a single damaged file costs nothing, whatever damaged it, and two of them mean that somebody else was at work.
const (
	identityFile  = "meta.properties" // the name and format that Kafka's users know
	identityCopy  = "meta.properties.copy"
	checksumKey   = "checksum="
	identityWidth = 128 // of the lines of blanks
)

var identityFiles = [...]string{identityFile, identityCopy}

// errNoIdentity is a directory that nobody has used yet. It is no fs.ErrNotExist, which may also be about one of the two files: whoever
// took that for a new directory would write over the identity of an old one.
var errNoIdentity = errors.New("the data directory has no identity")

var errIdentityDamaged = errors.New("damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// storedIdentity is what one of the files holds.
type storedIdentity struct {
	path string
	identity
	err error // why it cannot be read; fs.ErrNotExist when there is none
}

// loadIdentity returns what is stored, repairing one file from the other; errNoIdentity when there are no files. When it
// returns, both files hold what it returned, durably.
func loadIdentity(files disk.FS, dir string, logger *slog.Logger) (identity, error) {
	var stored [len(identityFiles)]storedIdentity
	best := -1
	for i, name := range identityFiles {
		stored[i] = readIdentity(files, filepath.Join(dir, name))
		if stored[i].err == nil && (best < 0 || stored[i].Revision > stored[best].Revision) {
			best = i
		}
	}
	if best < 0 {
		return identity{}, unreadable(dir, stored[0], stored[1])
	}
	good, other := stored[best], stored[1-best]
	var version versionError
	switch {
	case errors.As(other.err, &version):
		return identity{}, fmt.Errorf("%s: %w", other.path, other.err)
	case other.err == nil && (other.StoreID != good.StoreID || other.NodeID != good.NodeID):
		return identity{}, fmt.Errorf("%s is of store %s of node %d, and %s of store %s of node %d: one of them was not written here: "+
			"remove that one, and the start makes it again from the other",
			good.path, good.StoreID, good.NodeID, other.path, other.StoreID, other.NodeID)
	}
	if err := errors.Join(syncFile(files, good.path), files.SyncDir(dir)); err != nil {
		return identity{}, fmt.Errorf("cannot sync the identity of the data directory: %w", err)
	}
	if other.err == nil && other.Revision == good.Revision {
		err := syncFile(files, other.path)
		return good.identity, err
	}
	if other.err != nil {
		logger.Warn("the identity of the data directory is repaired from its other copy",
			"file", other.path, "reason", other.err, "from", good.path)
	}
	if err := good.write(files, other.path); err != nil {
		return identity{}, fmt.Errorf("cannot repair the identity of the data directory (%s: %w): %w", other.path, other.err, err)
	}
	return good.identity, nil
}

// unreadable says why there is no identity although there may be files of it.
func unreadable(dir string, first, second storedIdentity) error {
	var version versionError
	switch none := errors.Is(first.err, fs.ErrNotExist); {
	case none && errors.Is(second.err, fs.ErrNotExist):
		return errNoIdentity
	case errors.As(first.err, &version), errors.As(second.err, &version):
		return fmt.Errorf("%s: %w", first.path, version)
	case errors.Is(first.err, fs.ErrPermission), errors.Is(second.err, fs.ErrPermission):
		return errors.Join(first.err, second.err) // nothing is wrong with them, but with the directory
	}
	return fmt.Errorf("whose data %s holds cannot be read (%s: %w; %s: %w): restore one of the two files from a backup, "+
		"or start this node with an empty data directory and an unused node id",
		dir, first.path, first.err, second.path, second.err)
}

func readIdentity(files disk.FS, path string) storedIdentity {
	s := storedIdentity{path: path}
	var data []byte
	if data, s.err = files.ReadFile(path); s.err == nil {
		s.identity, s.err = parseIdentity(data)
	}
	return s
}

// store makes the identity durable, twice. loadIdentity has returned it, or errNoIdentity.
func (i *identity) store(files disk.FS, dir string) error {
	i.Revision++
	for _, name := range identityFiles {
		if err := i.write(files, filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("cannot write the identity of the data directory: %w", err)
		}
	}
	return nil
}

// write makes one of the files durable, in place if it is there.
func (i *identity) write(files disk.FS, path string) (err error) {
	block, err := i.block()
	if err != nil {
		return err
	}
	f, err := files.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return files.WriteFile(path, block)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.WriteSyncAt(block, 0)
	return err
}

func syncFile(files disk.FS, path string) error {
	f, err := files.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// block is the content of a file.
func (i *identity) block() ([]byte, error) {
	b := i.text()
	b = fmt.Appendf(b, "%s%08x\n", checksumKey, crc32.Checksum(b, castagnoli))
	if len(b) > disk.BlockSize {
		return nil, fmt.Errorf("%d bytes are more than a block", len(b))
	}
	block := disk.AlignedBytes(disk.BlockSize)
	for n := copy(block, b); n < len(block); n++ {
		block[n] = ' '
		if n%identityWidth == identityWidth-1 {
			block[n] = '\n'
		}
	}
	return block, nil
}

// checkedText returns the part of a file that its checksum vouches for.
func checkedText(data []byte) ([]byte, error) {
	at := bytes.LastIndex(data, []byte("\n"+checksumKey)) + 1
	if at == 0 {
		return nil, fmt.Errorf("%w: no line %q", errIdentityDamaged, checksumKey)
	}
	text, rest := data[:at], string(data[at+len(checksumKey):])
	sum, blanks, _ := strings.Cut(rest, "\n")
	want, err := strconv.ParseUint(sum, 16, 32)
	if err != nil || uint32(want) != crc32.Checksum(text, castagnoli) || strings.Trim(blanks, " \n") != "" {
		return nil, fmt.Errorf("%w: the checksum does not match", errIdentityDamaged)
	}
	return text, nil
}
