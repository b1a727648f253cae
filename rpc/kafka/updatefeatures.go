package kafka

// UpdateFeatures 0-1: the one feature is quorumlog.feature.level, what all nodes can do, and it only goes up. Deviation: all others of Kafka's, such
// as metadata.version, are not here (INVALID_UPDATE_VERSION). Nothing can be validated only (INVALID_REQUEST).

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
)

// levelFeature is the name of the feature level among Kafka's features.
const levelFeature = "quorumlog.feature.level"

// upgrade is the type of an update that goes up.
const upgrade = 1

func answerUpdateFeatures(c *call, r kmsg.Request) kmsg.Response {
	req := r.(*kmsg.UpdateFeaturesRequest)
	resp := req.ResponseKind().(*kmsg.UpdateFeaturesResponse)
	ctx, cancel := c.within(req.TimeoutMillis)
	defer cancel()
	err := checkFeatures(req)
	if err == nil {
		_, err = c.broker().UpgradeCluster(ctx, c.caller, broker.FeatureLevel(req.FeatureUpdates[0].MaxVersionLevel))
	}
	if kerr.CodeOf(err) == kerr.UnsupportedVersion { // which clients would take for one of the request
		err = kerr.Errorf(kerr.InvalidUpdateVersion, "%v", err)
	}
	resp.ErrorCode, resp.ErrorMessage = refusal(err)
	for _, f := range req.FeatureUpdates { // all or nothing
		answer := kmsg.NewUpdateFeaturesResponseResult()
		answer.Feature, answer.ErrorCode, answer.ErrorMessage = f.Feature, resp.ErrorCode, resp.ErrorMessage
		resp.Results = append(resp.Results, answer)
	}
	return resp
}

// checkFeatures refuses all but one update of the one feature.
func checkFeatures(req *kmsg.UpdateFeaturesRequest) error {
	if len(req.FeatureUpdates) == 0 {
		return kerr.Errorf(kerr.InvalidRequest, "No feature is named: there is %s", levelFeature)
	}
	for _, f := range req.FeatureUpdates {
		switch {
		case f.Feature != levelFeature:
			return kerr.Errorf(kerr.InvalidUpdateVersion, "The feature %.64q is not supported: there is %s", f.Feature, levelFeature)
		case f.AllowDowngrade || req.Version > 0 && f.UpgradeType != upgrade:
			return kerr.Errorf(kerr.InvalidUpdateVersion, "%s cannot go down", levelFeature)
		case f.MaxVersionLevel < 1:
			return kerr.Errorf(kerr.InvalidUpdateVersion, "%s cannot be %d: it is at least 1", levelFeature, f.MaxVersionLevel)
		}
	}
	switch {
	case len(req.FeatureUpdates) > 1:
		return kerr.Errorf(kerr.InvalidRequest, "%s is named twice", levelFeature)
	case req.ValidateOnly:
		return kerr.Errorf(kerr.InvalidRequest, "An update of features cannot be validated only: quorumlog cluster status tells the levels that all nodes know")
	}
	return nil
}
