package simulated

import "context"

type filesKey struct{}

// WithOpenFiles returns a context for node.Start in which the process may have as many files open as limit says.
func WithOpenFiles(ctx context.Context, limit uint64) context.Context {
	return context.WithValue(ctx, filesKey{}, limit)
}

// OpenFilesOf returns the limit that WithOpenFiles put into the context.
func OpenFilesOf(ctx context.Context) (uint64, bool) {
	limit, ok := ctx.Value(filesKey{}).(uint64)
	return limit, ok
}
