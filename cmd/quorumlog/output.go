package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// output is the flag -o.
type output struct{ format string }

func (o *output) register(cmd *cobra.Command) {
	cmd.PersistentFlags().VarP(o, "output", "o", "`format` of the output: text or json")
	o.format = "text"
}

// String, Set and Type make output a flag's value.
func (o *output) String() string { return o.format }

// Set takes the format as typed.
func (o *output) Set(v string) error {
	if v != "text" && v != "json" {
		return fmt.Errorf("must be text or json")
	}
	o.format = v
	return nil
}

// Type is what help calls the value.
func (o *output) Type() string { return "format" }

func (o *output) json() bool { return o.format == "json" }

// print writes v as one JSON document, or what text writes.
func (o *output) print(w io.Writer, v any, text func(io.Writer) error) error {
	if !o.json() {
		return text(w)
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// line is print of a single line of text.
func (o *output) line(w io.Writer, v any, format string, args ...any) error {
	return o.print(w, v, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, format+"\n", args...)
		return err
	})
}

// table writes rows in columns; cells are separated by tabs.
func table(w io.Writer, header string, rows []string) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, header)
	for _, r := range rows {
		fmt.Fprintln(t, r)
	}
	return t.Flush()
}
