package kafka

// DescribeCluster 0-1. Whoever is connected may ask. Nodes that do not seem to be alive are left out. Deviation: the controller is the
// node that is asked if it is none of those that are told.

import (
	"math"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/broker/acl"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// The types of endpoints: this is one of brokers.
const (
	brokerEndpoint     = 1
	controllerEndpoint = 2
)

func answerDescribeCluster(c *call, r kmsg.Request) kmsg.Response {
	req := r.(*kmsg.DescribeClusterRequest)
	resp := req.ResponseKind().(*kmsg.DescribeClusterResponse)
	resp.EndpointType, resp.ClusterAuthorizedOperations = brokerEndpoint, math.MinInt32
	resp.ControllerID = int32(id.NoNode)
	var err error
	switch {
	case req.Version == 0 || req.EndpointType == brokerEndpoint:
		err = c.describeCluster(resp)
	case req.EndpointType == controllerEndpoint:
		err = kerr.Errorf(kerr.MismatchedEndpointType, "The request was sent to an endpoint of the wrong type: this one is of brokers, there is none of controllers")
	default:
		err = kerr.Errorf(kerr.UnsupportedEndpointType, "Unsupported endpoint type %d", req.EndpointType)
	}
	resp.ErrorCode, resp.ErrorMessage = refusal(err)
	if err == nil && req.IncludeClusterAuthorizedOperations {
		resp.ClusterAuthorizedOperations = c.clusterOperations()
	}
	return resp
}

func (c *call) describeCluster(resp *kmsg.DescribeClusterResponse) error {
	m, err := c.broker().Metadata(c.ctx, c.caller, broker.MetadataQuery{})
	if err != nil {
		return err
	}
	resp.ClusterID = m.ClusterID
	resp.ControllerID = int32(c.server.options.Node) // any node takes what is meant for the controller
	for i := range m.Nodes {
		n := &m.Nodes[i]
		host, port, ok := endpoint(n)
		if !ok || !n.Alive {
			continue
		}
		described := kmsg.NewDescribeClusterResponseBroker()
		described.NodeID, described.Host, described.Port = int32(n.ID), host, port
		if n.Rack != "" {
			described.Rack = &n.Rack
		}
		resp.Brokers = append(resp.Brokers, described)
		if n.ID == m.Controller {
			resp.ControllerID = int32(n.ID)
		}
	}
	return nil
}

// clusterOperations returns what the caller may do with the cluster, and nothing if he may not ask.
func (c *call) clusterOperations() int32 {
	bits := c.operations(acl.TheCluster)
	if bits&(1<<acl.Describe) == 0 {
		return 0
	}
	return bits
}
