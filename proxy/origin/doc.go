// Package origin forwards requests to the one service behind the proxy, and
// its answers back, as they are.
//
// What it promises: the request target goes on byte for byte; so does the
// method, and the client's Host unless another is configured. What a client
// says about the way its request came (Forwarded, X-Forwarded-…) and the
// fields by which proxy and service talk to each other are removed, unless a
// trusted proxy said it. Bodies stream in both directions, flushed as they
// arrive; upgrades, 1xx responses and trailers pass.
//
// It stores nothing. Whoever does follows a request by an Exchange, which sees
// the response before the client, and the failure in its place.
package origin
