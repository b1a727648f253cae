package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/pprof"
	"runtime/trace"
	"syscall"

	"github.com/spf13/cobra"
)

// profiled adds flags for profiles to a command that runs until it is stopped. They cover the time between SIGUSR1 and SIGUSR2,
// so that a benchmark can leave out the start and the warm-up; no port is opened for them.
func profiled(cmd *cobra.Command) *cobra.Command {
	var p profiles
	cmd.Flags().StringVar(&p.cpu, "cpuprofile", "", "`file` for a CPU profile of the time between SIGUSR1 and SIGUSR2, and (.allocs) one of allocations since the start")
	cmd.Flags().StringVar(&p.trace, "trace", "", "`file` for an execution trace of the time between SIGUSR1 and SIGUSR2")
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if p.cpu != "" || p.trace != "" {
			defer p.listen()()
		}
		return run(cmd, args)
	}
	return cmd
}

// profiles are the files of a process's profiles; empty: none.
type profiles struct{ cpu, trace string }

// listen waits for the signals until the returned function is called.
func (p profiles) listen() (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	done := make(chan struct{})
	go func() {
		defer close(done)
		on := false
		for s := range signals {
			var err error
			switch {
			case s == syscall.SIGUSR1 && !on:
				on, err = true, p.begin()
			case s == syscall.SIGUSR2 && on:
				on, err = false, p.end()
			}
			if err != nil {
				slog.Error("profile", "error", err)
			}
		}
		if on {
			_ = p.end()
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
		<-done
	}
}

func (p profiles) begin() error {
	var errs []error
	if p.cpu != "" {
		f, err := os.Create(p.cpu)
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		errs = append(errs, err)
	}
	if p.trace != "" {
		f, err := os.Create(p.trace)
		if err == nil {
			err = trace.Start(f)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (p profiles) end() error {
	if p.trace != "" {
		trace.Stop()
	}
	if p.cpu == "" {
		return nil
	}
	pprof.StopCPUProfile()
	f, err := os.Create(p.cpu + ".allocs")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := pprof.Lookup("allocs").WriteTo(f, 0); err != nil {
		return fmt.Errorf("cannot write the profile of allocations: %w", err)
	}
	return nil
}
