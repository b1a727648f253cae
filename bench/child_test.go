package bench

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestProcessorsAreShared: each gets its part of the processors, rounded up, so that none is left over and nobody is without.
func TestProcessorsAreShared(t *testing.T) {
	t.Setenv("GOMAXPROCS", "")
	all := runtime.NumCPU()
	for n := 1; n <= all+2; n++ {
		if each := Processors(n); each < 1 || each*n < all || (each-1)*n >= all {
			t.Errorf("%d processes get %d each of %d processors", n, each, all)
		}
	}
	for _, nonsense := range []string{"0", "-3", "many"} {
		t.Setenv("GOMAXPROCS", nonsense)
		if each := Processors(1); each != all {
			t.Errorf("GOMAXPROCS=%s makes it %d", nonsense, each)
		}
	}
}

// TestGOMAXPROCSWins: whoever sets it knows better, however many share the machine.
func TestGOMAXPROCSWins(t *testing.T) {
	set := 3*runtime.NumCPU() + 1
	t.Setenv("GOMAXPROCS", fmt.Sprint(set))
	for n := 1; n <= 3; n++ {
		if each := Processors(n); each != set {
			t.Errorf("%d processes get %d each, %d is set", n, each, set)
		}
		if text := ProcessorsSetting(n); !strings.Contains(text, fmt.Sprintf("GOMAXPROCS %d ", set)) {
			t.Errorf("the report says %q", text)
		}
	}
}

// TestChildrenAreToldTheirShare starts a process and has it say what it was given: nothing if it has the machine to itself.
func TestChildrenAreToldTheirShare(t *testing.T) {
	for _, tc := range []struct {
		name, set string
		share     int
		want      string
	}{
		{"alone", "", 0, ""},
		{"alone, set", "5", 0, "5"},
		{"shared", "", 1, fmt.Sprint(runtime.NumCPU())},
		{"shared by many", "", 1000, "1"},
		{"shared, set", "7", 2, "7"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("GOMAXPROCS", tc.set)
			said := make(chan string, 1)
			c, err := StartChild(t.Context(), ChildOptions{
				Name: "echo", Path: "/bin/sh", Args: []string{"-c", `echo "GOMAXPROCS=$GOMAXPROCS"; exec sleep 60`},
				Log: filepath.Join(t.TempDir(), "log"), Share: tc.share,
				Ready: func(line string) bool { said <- line; return true },
			})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Kill()
			if got := <-said; got != "GOMAXPROCS="+tc.want {
				t.Errorf("it was told %q", got)
			}
		})
	}
}
