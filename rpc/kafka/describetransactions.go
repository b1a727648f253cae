package kafka

// DescribeTransactions 0. There are no transactions: no transactional id is known (TRANSACTIONAL_ID_NOT_FOUND), whoever asks.

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/kerr"
)

func answerDescribeTransactions(_ *call, r kmsg.Request) kmsg.Response {
	req := r.(*kmsg.DescribeTransactionsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeTransactionsResponse)
	for _, transactional := range req.TransactionalIDs {
		answer := kmsg.NewDescribeTransactionsResponseTransactionState()
		answer.TransactionalID, answer.ErrorCode = transactional, int16(kerr.TransactionalIDNotFound)
		resp.TransactionStates = append(resp.TransactionStates, answer)
	}
	return resp
}
