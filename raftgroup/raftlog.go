package raftgroup

import (
	"context"
	"fmt"
	"log/slog"

	"go.etcd.io/raft/v3"

	"github.com/quorumlog/quorumlog/wal/id"
)

// raftPanic is what Raft's own panics arrive as.
type raftPanic struct{ text string }

// Error implements error.
func (p raftPanic) Error() string { return p.text }

// raftLogger gives what Raft says to slog: everything at the debug level, since it says something for each change of each of
// thousands of groups. Its panics, and its fatal errors, become Go panics that stop one replica.
type raftLogger struct{ log *slog.Logger }

func newRaftLogger(l *slog.Logger, g id.Group, r id.Replica) raft.Logger {
	if !l.Enabled(context.Background(), slog.LevelDebug) {
		return raftLogger{}
	}
	return raftLogger{log: l.With("group", uint64(g), "replica", uint64(r))}
}

func (l raftLogger) print(v []any) {
	if l.log != nil {
		l.log.Debug(fmt.Sprint(v...))
	}
}

func (l raftLogger) printf(format string, v []any) {
	if l.log != nil {
		l.log.Debug(fmt.Sprintf(format, v...))
	}
}

// The methods of raft.Logger.
func (l raftLogger) Debug(v ...any)                   { l.print(v) }
func (l raftLogger) Debugf(format string, v ...any)   { l.printf(format, v) }
func (l raftLogger) Info(v ...any)                    { l.print(v) }
func (l raftLogger) Infof(format string, v ...any)    { l.printf(format, v) }
func (l raftLogger) Warning(v ...any)                 { l.print(v) }
func (l raftLogger) Warningf(format string, v ...any) { l.printf(format, v) }
func (l raftLogger) Error(v ...any)                   { l.print(v) }
func (l raftLogger) Errorf(format string, v ...any)   { l.printf(format, v) }
func (l raftLogger) Fatal(v ...any)                   { panic(raftPanic{fmt.Sprint(v...)}) }
func (l raftLogger) Fatalf(format string, v ...any)   { panic(raftPanic{fmt.Sprintf(format, v...)}) }
func (l raftLogger) Panic(v ...any)                   { panic(raftPanic{fmt.Sprint(v...)}) }
func (l raftLogger) Panicf(format string, v ...any)   { panic(raftPanic{fmt.Sprintf(format, v...)}) }
