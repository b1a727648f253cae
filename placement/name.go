package placement

import (
	"strconv"
	"strings"
)

// MetadataTopic is the name of the topic whose only partition is the metadata log. It is not in the table: the table is in it.
const MetadataTopic = "__cluster_metadata"

// maxTopicName is Kafka's limit: with "-" and the partition it has to be a file name.
const maxTopicName = 249

// CheckTopicName checks Kafka's rules for a topic's name.
func CheckTopicName(name string) error {
	switch {
	case name == "":
		return refuse(ErrInvalidTopic, "Topic name is invalid: the empty string is not allowed")
	case name == "." || name == "..":
		return refuse(ErrInvalidTopic, `Topic name is invalid: "." and ".." are not allowed`)
	case len(name) > maxTopicName:
		return refuse(ErrInvalidTopic, "Topic name is invalid: it has %d characters, at most %d are allowed: %s", len(name), maxTopicName, quote(name))
	case strings.IndexFunc(name, notTopicRune) >= 0:
		return refuse(ErrInvalidTopic, "Topic name is invalid: %s contains characters other than ASCII letters, digits, '.', '_' and '-'", quote(name))
	case name == MetadataTopic:
		return refuse(ErrInvalidTopic, "Topic name is invalid: %s is the cluster's own", name)
	}
	return nil
}

func notTopicRune(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-'
}

// IsInternal tells whether the topic belongs to the system (__consumer_offsets and its like).
func IsInternal(name string) bool { return strings.HasPrefix(name, "__") }

// collisionName is equal for two names that differ only in '.' and '_': metrics systems cannot tell such topics apart, so Kafka
// refuses the second one, and so do we.
func collisionName(name string) string { return strings.ReplaceAll(name, ".", "_") }

// quote prints a user's text in a message of bounded length.
func quote(s string) string {
	if len(s) > 60 {
		s = s[:60] + "…"
	}
	return strconv.Quote(s)
}
