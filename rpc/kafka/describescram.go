package kafka

// DescribeUserScramCredentials 0: the users who have passwords, and the iterations of each. No deviations.

import (
	"github.com/twmb/franz-go/pkg/kmsg"
)

func answerDescribeScram(c *call, r kmsg.Request) kmsg.Response {
	req := r.(*kmsg.DescribeUserSCRAMCredentialsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeUserSCRAMCredentialsResponse)
	var names []string
	for _, u := range req.Users {
		names = append(names, u.Name)
	}
	users, err := c.broker().DescribeUsers(c.ctx, c.caller, names)
	resp.ErrorCode, resp.ErrorMessage = refusal(err)
	for _, u := range users {
		described := kmsg.NewDescribeUserSCRAMCredentialsResponseResult()
		described.User = u.Name
		if u.Err != nil {
			described.ErrorCode, described.ErrorMessage = refusal(u.Err)
		}
		for _, credential := range u.Credentials {
			info := kmsg.NewDescribeUserSCRAMCredentialsResponseResultCredentialInfo()
			info.Mechanism, info.Iterations = int8(credential.Mechanism), int32(credential.Iterations)
			described.CredentialInfos = append(described.CredentialInfos, info)
		}
		resp.Results = append(resp.Results, described)
	}
	return resp
}
