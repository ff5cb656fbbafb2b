// Package rules is HTTP caching as the RFCs say it, for a shared cache:
// functions of facts, which neither read nor write anything.
//
//	storing.go         may an answer be stored, and on which terms
//	freshness.go       for how long is it fresh
//	directives.go      Cache-Control and its kin; list.go: lists with quoted strings
//	vary.go            which variant of an answer a request selects
//	encoding.go        Accept-Encoding, reduced to one coding
//	accept.go          Accept, reduced to one media type
//	preconditions.go   what a client has already: 304 and 412
//	ranges.go          which part of a body a client wants: 206 and 416
//	validation.go      what to ask the upstream about stored answers, and which a 304 is about
//	update.go          which fields are stored, and what a 304 or a HEAD changes in them
//	invalidation.go    what a change made through the proxy makes stale
//
// RFC 9111 is caching, RFC 9110 the semantics of what is cached; also RFC 5861
// (stale-while-revalidate, stale-if-error), RFC 8246 (immutable), RFC 9213
// (CDN-Cache-Control) and RFC 9875 (cache groups). Where a decision goes beyond
// what they say, the comment says why.
//
// A header is an http.Header in canonical spelling, whoever read it. Nothing in
// here knows a request of net/http, a connection, a store or a database.
package rules
