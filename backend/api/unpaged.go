package api

import (
	"context"
	"net/http"
	"time"
)

// unpaged bounds how many lists without pages are made and sent at a time. Each
// takes the memory of all its rows until its client has read it, and a client may
// take its time.
type unpaged chan struct{}

const (
	mostUnpaged = 64
	unpagedWait = 5 * time.Second
)

// begin returns when there is room, or a problem. end gives it back.
func (u unpaged) begin(ctx context.Context) (end func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, unpagedWait)
	defer cancel()
	select {
	case u <- struct{}{}:
		return func() { <-u }, nil
	case <-ctx.Done():
		return nil, &problem{
			status: http.StatusServiceUnavailable, header: header("Retry-After", "5"),
			reason: "too many lists are being sent; try again soon, or ask for pages: page=1&page_size=100",
		}
	}
}
