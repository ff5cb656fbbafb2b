// Package wire stands between the network and net/http: what net/http reads of
// an HTTP/1.1 connection has been found well-formed first, by rules that leave
// nothing to be read in two ways. Whoever forwards a message that two readers
// split differently hands an attacker the requests of others; net/http takes
// bare line feeds, folded fields, a Transfer-Encoding beside a Content-Length
// and two equal lengths, and a service behind the proxy may read those otherwise.
//
//	client ──► paced ──► (TLS) ──► Conn ───────────────────────► net/http ──► handler
//	           (pace.go) (tls.go)  │ head of a request (head.go)
//	                               │ its body          (body.go)
//	                               ├ answer 400        (reason.go)
//	                               └ answer at once    (answer.go)
//
//	between requests ──head──► body ──its end──► (net/http answers) ──► between requests
//	                                               └─ 101 ──► raw, for ever
//
// What it promises:
//
//   - Of a head nothing passes before all of it is there and allowed (Head); of a
//     body nothing beyond the end that its framing gives. What passes, passes byte
//     for byte. See TestConn_PassesGoodRequestsAsTheyAre.
//   - net/http finds the same requests in it: method, target, host, fields, body.
//     See FuzzConn.
//   - What is not allowed is answered by what is wrong and what to do, and the
//     connection ends; it is counted (Reason, Counters). If an earlier request of
//     the connection is still being answered, that answer goes out first, whole.
//     See TestConn_AnswersWhatCameBeforeARefusal.
//   - After a request for an upgrade nothing passes until it is decided: raw from
//     the 101 on, else as the next request. See TestServe_UpgradesPassRaw.
//   - A client that is slow ends by itself: a head takes at most Limits.HeadTime
//     from its first byte on, and neither a body nor a reader of answers may rest
//     for longer than Limits.Pause.
//   - What an Answerer has at hand is answered before net/http sees the request, in
//     its turn, and only if net/http would have found the same request (lent). A
//     server that shuts down finishes such an answer. See FuzzLent,
//     TestAnswer_KeepsTheOrderOfPipelinedRequests and
//     TestAnswer_IsFinishedBeforeAServerHasShutDown.
//
// The parser allocates nothing once its buffers have grown, and what it has found
// is there to be used (Conn.Head).
//
// HTTP/2 has a framing of its own, which net/http reads. What it leaves open is
// checked before the handler (http2.go); TestHTTP2 has the table.
package wire
