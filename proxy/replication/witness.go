package replication

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walcache/proxy/coherence"
)

// Witness asks the primary where it is, and sends messages through its change
// stream, for a process that may not be the one that follows it. It connects
// when it is first asked, and again when the connection was lost. All methods
// may be called concurrently; questions are put one at a time.
type Witness struct {
	url  string
	life context.Context // of the connection, longer than that of any question; ends with Close
	end  context.CancelFunc
	turn chan struct{} // holds one token while someone has the turn, and uses the following
	db   *pgx.Conn     // nil until first asked
}

// NewWitness makes a Witness of the database at a URL. It does not connect yet.
func NewWitness(databaseURL string) *Witness {
	life, end := context.WithCancel(context.Background())
	return &Witness{url: databaseURL, life: life, end: end, turn: make(chan struct{}, 1)}
}

// questionTimeout bounds a question that nobody waits for any more.
const questionTimeout = 5 * time.Second

// Announce sends lines (see Prefix) as one logical message, in a transaction of
// its own. It returns a position that lies after the commit.
func (w *Witness) Announce(ctx context.Context, lines ...string) (coherence.LSN, error) {
	for _, line := range lines {
		if strings.ContainsAny(line, "\n\x00") {
			return 0, fmt.Errorf("send a logical message: %q is not a line", line)
		}
	}
	return w.ask(ctx, "send a logical message", func(ctx context.Context, db *pgx.Conn) (coherence.LSN, error) {
		if err := announce(ctx, db, lines...); err != nil {
			return 0, err
		}
		return insertLSN(ctx, db)
	})
}

// Sample returns the primary's insert position as of some moment after the
// call: every commit that was acknowledged before ends at or before it.
func (w *Witness) Sample(ctx context.Context) (coherence.LSN, error) {
	return w.ask(ctx, "ask for the insert position", insertLSN)
}

// nudgeWitness is how long the one who streams is given before it is woken: it
// learns of what an idle server has not flushed, or of the head of a page that
// nobody has begun, only by its next beat.
const nudgeWitness = 5 * time.Millisecond

// CatchUp returns once everything that was committed before the call is known,
// as wait says: it returns once everything up to a position is. It ends with an
// error when ctx does.
func (w *Witness) CatchUp(ctx context.Context, wait func(context.Context, coherence.LSN) error) error {
	target, err := w.Sample(ctx)
	if err != nil {
		return err
	}
	soon, cancel := context.WithTimeout(ctx, nudgeWitness)
	defer cancel()
	if err := wait(soon, target); err == nil || soon.Err() == nil || ctx.Err() != nil {
		return err
	}
	if _, err := w.Announce(ctx); err != nil {
		return err
	}
	return wait(ctx, target)
}

// Close ends the connection, and fails the question under way and all that are
// put later. It may be called more than once.
func (w *Witness) Close() {
	w.end()
	w.turn <- struct{}{}
	w.hangUp()
	<-w.turn
}

// ask puts a question when it is its turn. It goes on without a caller whose ctx
// has ended: a query that is cut short takes its connection with it, and the
// next caller would wait for another.
func (w *Witness) ask(ctx context.Context, what string, question func(context.Context, *pgx.Conn) (coherence.LSN, error)) (coherence.LSN, error) {
	select {
	case w.turn <- struct{}{}:
	case <-ctx.Done():
		return 0, fmt.Errorf("%s: %w", what, ctx.Err())
	}
	type answer struct {
		lsn coherence.LSN
		err error
	}
	answered := make(chan answer, 1)
	go func() {
		defer func() { <-w.turn }()
		ctx, cancel := context.WithTimeout(w.life, questionTimeout)
		defer cancel()
		lsn, err := w.put(ctx, question)
		answered <- answer{lsn, err}
	}()
	select {
	case a := <-answered:
		if a.err != nil {
			return 0, fmt.Errorf("%s: %w", what, a.err)
		}
		return a.lsn, nil
	case <-ctx.Done():
		return 0, fmt.Errorf("%s: %w", what, ctx.Err())
	}
}

// put asks on the connection that there is, and if that was lost, once more on
// another: each question may be put twice.
func (w *Witness) put(ctx context.Context, question func(context.Context, *pgx.Conn) (coherence.LSN, error)) (coherence.LSN, error) {
	if w.life.Err() != nil {
		return 0, errors.New("the connection was closed for good")
	}
	if w.db != nil {
		lsn, err := question(ctx, w.db)
		if err == nil {
			return lsn, nil
		}
		w.hangUp()
		if errors.As(err, new(*pgconn.PgError)) && !strings.HasPrefix(sqlState(err), "57") { // operator_intervention
			return 0, err
		}
	}
	db, err := connect(ctx, w.url, applicationName)
	if err != nil {
		return 0, err
	}
	w.db = db
	lsn, err := question(ctx, db)
	if err != nil {
		w.hangUp() // the next may find another server, which is the primary
	}
	return lsn, err
}

func (w *Witness) hangUp() {
	if w.db == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = w.db.Close(ctx)
	w.db = nil
}

// announce sends a logical message through the stream. Committed with
// synchronous_commit = local, it flushes what lies before it.
func announce(ctx context.Context, db *pgx.Conn, lines ...string) error {
	_, err := db.Exec(ctx, "SELECT pg_logical_emit_message(true, $1, $2::text)", Prefix, strings.Join(lines, "\n"))
	return err
}

// announceNow sends a line, and returns the position of the message. Everything
// committed before the call lies before that.
//
// The message is not of a transaction, or whoever waits for it would have to wait
// for a position after a commit that is still to come. But then nothing flushes it,
// and what is not flushed is not sent: so an empty one comes before it, whose
// transaction commits after both.
func announceNow(ctx context.Context, db *pgx.Conn, line string) (coherence.LSN, error) {
	var lsn string
	err := db.QueryRow(ctx, "SELECT pg_logical_emit_message(false, $1, $2::text)::text FROM pg_logical_emit_message(true, $1, '')",
		Prefix, line).Scan(&lsn)
	if err != nil {
		return 0, err
	}
	return coherence.ParseLSN(lsn)
}

func insertLSN(ctx context.Context, db *pgx.Conn) (coherence.LSN, error) {
	var lsn string
	if err := db.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text").Scan(&lsn); err != nil {
		return 0, err
	}
	return coherence.ParseLSN(lsn)
}
