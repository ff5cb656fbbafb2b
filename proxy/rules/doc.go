// Package rules is HTTP caching as the RFCs say it, for a shared cache:
// functions of facts, which neither read nor write anything.
//
//	storing.go         may an answer be stored, and for how long is it fresh
//	directives.go      Cache-Control and its kin
//	vary.go            which variant of an answer a request selects
//	encoding.go        Accept-Encoding, reduced to one coding
//	accept.go          Accept, reduced to one media type
//	preconditions.go   what a client has already
//
// RFC 9111 is caching, RFC 9110 the semantics of what is cached; also RFC 5861
// (stale-while-revalidate, stale-if-error), RFC 8246 (immutable), RFC 9213
// (CDN-Cache-Control) and RFC 9875 (cache groups). Where a decision goes beyond
// what they say, the comment says why.
//
// A header is an http.Header in canonical spelling, whoever read it. Nothing in
// here knows a request of net/http, a connection, a store or a database.
package rules
