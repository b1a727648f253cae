package raftgrouptest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
)

// WalDisk keeps logs in a wal on a simulated disk.
type WalDisk struct {
	// Options of the wal; Dir, FS, PebbleFS and OnFatal are set.
	Options wal.Options
	// Kind of crash; power loss unless set.
	Kind disksim.Kind
	// OnRefused is told of replicas that recovery could not vouch for.
	OnRefused func(wal.Refusal)

	sim  *disksim.Disk
	open *walStore
}

// NewWalDisk returns an empty disk.
func NewWalDisk(seed uint64) *WalDisk {
	return &WalDisk{sim: disksim.New(disksim.Options{Seed: seed}), Kind: disksim.PowerLoss}
}

// walStore is a wal.Store as a Store.
type walStore struct {
	*wal.Store
}

// Fill has somebody else take all that is free on the disk.
func (d *WalDisk) Fill() { d.sim.SetCapacity(d.sim.Used()) }

// Open implements Disk.
func (d *WalDisk) Open() (Store, error) {
	o := d.Options
	o.Dir, o.FS, o.PebbleFS = "data", d.sim, d.sim.Pebble()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := wal.Open(context.Background(), o)
	if err != nil {
		return nil, fmt.Errorf("raftgrouptest: open wal: %w", err)
	}
	for _, r := range s.Refused() {
		if d.OnRefused == nil {
			return nil, errors.Join(fmt.Errorf("raftgrouptest: replica %d of group %d refused: %s", r.Replica, r.Group, r.Reason), s.Close())
		}
		d.OnRefused(r)
	}
	d.open = &walStore{s}
	return d.open, nil
}

// Halt implements Disk.
func (d *WalDisk) Halt() { d.sim.Halt() }

// Crash implements Disk.
func (d *WalDisk) Crash() {
	_ = d.open.Store.Close() // which finds its disk gone
	d.sim = d.sim.Crash(d.Kind)
}

// Create implements Store.
func (s *walStore) Create(ctx context.Context, spec wal.Spec) (raftgroup.Log, error) {
	return s.Store.Create(ctx, spec)
}

// Logs implements Store.
func (s *walStore) Logs() []raftgroup.Log {
	var logs []raftgroup.Log
	for _, l := range s.Store.Logs() {
		logs = append(logs, l)
	}
	return logs
}
