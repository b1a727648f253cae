package kafka

import "github.com/twmb/franz-go/pkg/kmsg"

// apis is what is served, by key. Nothing is advertised whose meaning is not there: clients act on what they find here. Who answers finds the
// table in the server.
var apis = []api{
	{kmsg.ApiVersions, 0, 4, answerApiVersions},
}
