// Package trouble says what an error of the database means for whoever has asked,
// and logs that the database, or Redis, is away.
//
// Both the API and the panel ask here, so that the same error gets the same
// answer from both:
//
//	Away      503: ask again later
//	Conflict  409: somebody else was faster; nothing was done, ask again now
//	Refused   409: the data that is there does not allow it; nothing was done
//	Ours      500: a mistake of this service
package trouble

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Kind is what kind of trouble an error is.
type Kind int

const (
	// Ours is all that is none of the others.
	Ours Kind = iota
	// Away is a database that could not be asked, or would not answer for now.
	Away
	// Conflict is a transaction that the database has undone because of another
	// at the same time: a deadlock, a serialization failure. The same may well
	// succeed at once, so it is not Away; and the database is well.
	Conflict
	// Refused is a change that the database does not allow, because of the data
	// that it has.
	Refused
)

// classes are those of the errors of PostgreSQL that are not Ours, and a few
// codes (PostgreSQL documentation, appendix A).
var classes = map[Kind][]string{
	Away: {
		"08",    // connection exception
		"53",    // insufficient resources, as too many connections
		"55",    // object not in prerequisite state, as a lock not available
		"57",    // operator intervention, as a shutdown or a cancelled statement
		"58",    // system error
		"42P01", // undefined table: the migration that makes it has not run yet
		"42703", // undefined column, likewise
	},
	Conflict: {"40"}, // transaction rollback
	Refused:  {"23"}, // integrity constraint violation
}

// Of says what kind of trouble an error is that asking the database returned.
func Of(err error) Kind {
	if answer, ok := errors.AsType[*pgconn.PgError](err); ok && !isConnect(err) {
		for kind, codes := range classes {
			if slices.ContainsFunc(codes, func(code string) bool { return strings.HasPrefix(answer.Code, code) }) {
				return kind
			}
		}
		return Ours
	}
	_, broken := errors.AsType[net.Error](err)
	if isConnect(err) || broken || errors.Is(err, io.ErrUnexpectedEOF) || pgconn.SafeToRetry(err) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return Away
	}
	return Ours
}

// isConnect reports whether there was no connection, whatever the server may have
// said to that.
func isConnect(err error) bool {
	_, ok := errors.AsType[*pgconn.ConnectError](err)
	return ok
}

// MaybeDone reports whether a change that failed with this error may have been
// made all the same: the connection broke, perhaps after COMMIT was sent. Where
// the database has answered, or was never asked, nothing was done.
func MaybeDone(err error) bool {
	_, answered := errors.AsType[*pgconn.PgError](err)
	return !isConnect(err) && !answered && !pgconn.SafeToRetry(err)
}

// Reason is what the database says about a change that it refused: text for
// people, without the values that it was about. "" where it said nothing.
func Reason(err error) string {
	if answer, ok := errors.AsType[*pgconn.PgError](err); ok {
		return answer.Message
	}
	return ""
}
