package kafka

// ApiVersions 0-4. A request of a version that is not served is answered in version 0 with UNSUPPORTED_VERSION and what is (KIP-511), and its
// body is not looked at. Deviations: no features are told.

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/kerr"
)

func answerApiVersions(c *call, _ kmsg.Request) kmsg.Response {
	return c.server.apiVersions(c.version, kerr.None)
}

func (s *Server) apiVersions(version int16, code kerr.Code) *kmsg.ApiVersionsResponse {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.Version, resp.ErrorCode = version, int16(code)
	resp.ApiKeys = make([]kmsg.ApiVersionsResponseApiKey, len(s.apis))
	for i, a := range s.apis {
		key := &resp.ApiKeys[i]
		key.ApiKey, key.MinVersion, key.MaxVersion = a.key.Int16(), a.min, a.max
	}
	return resp
}
