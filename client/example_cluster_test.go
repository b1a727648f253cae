package client_test

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/lni/goutils/leaktest"

	"github.com/quorumlog/quorumlog/node/nodetest"
)

// The examples run against a real node, which the first of them starts. They come after all tests, so it disturbs none.

func TestMain(m *testing.M) {
	nothingIsLeft := leaktest.AfterTest(&examples)
	code := m.Run()
	examples.close()
	nothingIsLeft()
	if examples.failed {
		code = 1
	}
	os.Exit(code)
}

// servers are the addresses of a cluster: []string{"host1:9192", "host2:9192", "host3:9192"}.
var servers = sync.OnceValue(func() []string { return nodetest.Start(&examples, 1).Servers() })

var examples exampleTB

// exampleTB is what nodetest needs of a test, for examples, which have none.
type exampleTB struct {
	testing.TB
	cleanups []func()
	failed   bool
}

func (e *exampleTB) Helper()                    {}
func (e *exampleTB) Failed() bool               { return e.failed }
func (e *exampleTB) Cleanup(f func())           { e.cleanups = append(e.cleanups, f) }
func (e *exampleTB) Log(args ...any)            { fmt.Fprintln(os.Stderr, args...) }
func (e *exampleTB) Logf(f string, args ...any) { fmt.Fprintf(os.Stderr, f+"\n", args...) }

func (e *exampleTB) Errorf(f string, args ...any) {
	e.failed = true
	e.Logf(f, args...)
}

func (e *exampleTB) Fatalf(f string, args ...any) { panic(fmt.Sprintf(f, args...)) }
func (e *exampleTB) Fatal(args ...any)            { panic(fmt.Sprint(args...)) }

func (e *exampleTB) TempDir() string {
	dir, err := os.MkdirTemp("", "quorumlog-examples-")
	if err != nil {
		panic(err)
	}
	e.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (e *exampleTB) close() {
	for len(e.cleanups) > 0 {
		last := e.cleanups[len(e.cleanups)-1]
		e.cleanups = e.cleanups[:len(e.cleanups)-1]
		last()
	}
}
