package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/wal/id"
)

// deletedReport is what topic delete-records prints of a partition.
type deletedReport struct {
	Topic        string       `json:"topic"`
	Partition    id.Partition `json:"partition"`
	LowWatermark id.Offset    `json:"low_watermark"` // -1 with an error
	Error        string       `json:"error,omitempty"`
}

func (t *topicCommand) deleteRecords() *cobra.Command {
	var partition int32
	var offset int64
	var file string
	cmd := &cobra.Command{
		Use:   "delete-records [TOPIC]",
		Short: "Delete the records of partitions below an offset, for good",
		Long: `Delete the records of partitions below an offset, for good (Kafka: kafka-delete-records). Either of one partition:

  quorumlog topic delete-records orders --partition 3 --offset 42

or of those in a file as Kafka's tool takes it:

  {"partitions": [{"topic": "orders", "partition": 3, "offset": 42}], "version": 1}

The offset -1 stands for the high watermark: all records that are committed. The exit code is 1 if it failed for any partition.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var before map[client.TopicPartition]client.Offset
			one := cmd.Flags().Changed("partition") && cmd.Flags().Changed("offset")
			switch {
			case file != "" && len(args) == 0 && !cmd.Flags().Changed("partition") && !cmd.Flags().Changed("offset"):
				b, err := os.ReadFile(file)
				if err != nil {
					return err
				}
				if before, err = parseDeletions(b); err != nil {
					return fmt.Errorf("%s: %w", file, err)
				}
			case file == "" && len(args) == 1 && one:
				if partition < 0 || offset < -1 {
					return fmt.Errorf("partition %d, offset %d: a partition is at least 0, an offset at least 0, or -1 for the high watermark", partition, offset)
				}
				before = map[client.TopicPartition]client.Offset{{Topic: args[0], Partition: id.Partition(partition)}: client.Offset(offset)}
			default:
				return errors.New("say whose records: TOPIC with --partition and --offset, or --offset-json-file")
			}
			return t.conn.admin(cmd, func(ctx context.Context, a *client.Admin) error {
				return t.runDeleteRecords(ctx, cmd.OutOrStdout(), a, before)
			})
		},
	}
	cmd.Flags().Int32Var(&partition, "partition", 0, "the `partition`")
	cmd.Flags().Int64Var(&offset, "offset", 0, "records below this `offset` are deleted; -1: all")
	cmd.Flags().StringVar(&file, "offset-json-file", "", "partitions and offsets, as JSON in this `file`")
	return cmd
}

func (t *topicCommand) runDeleteRecords(ctx context.Context, w io.Writer, a *client.Admin, before map[client.TopicPartition]client.Offset) error {
	deleted, _ := a.DeleteRecords(ctx, before) // the answers have all that is wrong
	report := make([]deletedReport, len(deleted))
	failed := 0
	for i, d := range deleted {
		report[i] = deletedReport{Topic: d.Topic, Partition: d.Partition, LowWatermark: d.LowWatermark}
		if d.Err != nil {
			failed++
			report[i].Error = refusal(d.Err).Error()
		}
	}
	err := t.out.print(w, report, func(w io.Writer) error {
		for i, d := range deleted {
			what := fmt.Sprintf("low_watermark: %d", d.LowWatermark)
			if d.Err != nil {
				what = "error: " + report[i].Error
			}
			if _, err := fmt.Fprintf(w, "partition: %s\t%s\n", d.TopicPartition, what); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && failed > 0 {
		err = fmt.Errorf("the records of %d of %d partitions were not deleted", failed, len(deleted))
	}
	return err
}

// parseDeletions reads the file of kafka-delete-records. Nothing is guessed: what is left out or misspelt might delete something else.
func parseDeletions(b []byte) (map[client.TopicPartition]client.Offset, error) {
	var file struct {
		Version    *int                         `json:"version"`
		Partitions []map[string]json.RawMessage `json:"partitions"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		return nil, err
	}
	if file.Version != nil && *file.Version != 1 {
		return nil, fmt.Errorf("version %d: this program knows 1", *file.Version)
	}
	if len(file.Partitions) == 0 {
		return nil, errors.New(`no "partitions"`)
	}
	before := make(map[client.TopicPartition]client.Offset, len(file.Partitions))
	for i, p := range file.Partitions {
		var tp client.TopicPartition
		var offset client.Offset
		for key, to := range map[string]any{"topic": &tp.Topic, "partition": &tp.Partition, "offset": &offset} {
			if raw := p[key]; raw == nil || string(raw) == "null" {
				return nil, fmt.Errorf("partitions[%d] has no %q", i, key)
			} else if err := json.Unmarshal(raw, to); err != nil {
				return nil, fmt.Errorf("partitions[%d].%s: %w", i, key, err)
			}
		}
		if _, ok := before[tp]; ok {
			return nil, fmt.Errorf("%s is there twice", tp)
		}
		before[tp] = offset
	}
	return before, nil
}
