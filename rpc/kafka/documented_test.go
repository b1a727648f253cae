package kafka

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDocumented compares the table of APIs with the one that users read.
func TestDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/KAFKA.md")
	require.NoError(t, err)
	_, after, found := strings.Cut(string(text), "| --- | --- | --- |\n")
	require.True(t, found, "docs/KAFKA.md has no table")
	table, _, _ := strings.Cut(after, "\n\n")
	var want []string
	for _, a := range apis {
		want = append(want, fmt.Sprintf("| %s | %d | %d-%d |", a.key.Name(), a.key.Int16(), a.min, a.max))
	}
	require.Equal(t, strings.Join(want, "\n"), strings.TrimRight(table, "\n"))
}
