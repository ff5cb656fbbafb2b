package replication

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"walcache/proxy/coherence"
)

// walSenderTimeout is asked for on our connection alone: after so long without a
// word from us the server takes the slot away, from a process that froze or was
// cut off. Its own default of a minute would keep the next leader waiting.
//
// A server that is busy decoding reads what we say twice in that time at least,
// also while it skips a large transaction of which nothing is published, and a
// word is said four times a second, whatever else this process does.
const walSenderTimeout = 2 * time.Second

const reportEvery = 250 * time.Millisecond

// silentFor is how long the server may send nothing at all before it is given
// up, in timeouts of the connection. It answers every report, except while it is
// busy with something that it cannot interrupt, and to give that up would be to
// begin it again. A machine that is gone is noticed sooner, by dial.
const silentFor = 5

// stream is a replication connection. The goroutine that calls receive owns its
// reading half, and one of its own, between start and close, its sending half:
// nobody who has something to apply ever waits for the server to read.
type stream struct {
	conn      *pgconn.PgConn
	silence   time.Duration // how long the server may send nothing
	last      atomic.Int64  // when something was received, in Unix nanoseconds
	received  atomic.Uint64 // everything up to it is applied; 0 until begin
	confirmed atomic.Uint64 // PostgreSQL may forget up to it; 0 until begin
	wake      chan struct{} // holds one token while a report is wanted at once
	closing   chan struct{} // closed by close
	reporting sync.WaitGroup
}

// openStream connects for replication; start begins the stream. timeout is how
// long the server waits for a word from us.
func openStream(ctx context.Context, databaseURL, name string, timeout time.Duration) (*stream, error) {
	config, err := pgconn.ParseConfig(databaseURL)
	if err != nil {
		return nil, err
	}
	dial(config)
	params := config.RuntimeParams
	params["replication"] = "database"
	params["application_name"] = name
	// Values reach tags as text, so their form must not depend on the server's
	// settings. Transactions that outgrow the work memory are streamed to us
	// before they commit, instead of holding back every commit behind them.
	params["client_encoding"] = "UTF8"
	params["datestyle"] = "ISO"
	params["options"] += fmt.Sprintf(" -c wal_sender_timeout=%d -c logical_decoding_work_mem=8MB", timeout.Milliseconds())
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	// A database without an encoding may hold bytes that are not UTF-8, which the
	// server would refuse to send as such.
	if conn.ParameterStatus("server_encoding") == "SQL_ASCII" {
		if _, err := conn.Exec(ctx, "SET client_encoding = SQL_ASCII").ReadAll(); err != nil {
			return nil, errors.Join(err, conn.Close(ctx))
		}
	}
	return &stream{conn: conn, silence: silentFor * timeout, wake: make(chan struct{}, 1), closing: make(chan struct{})}, nil
}

// start asks for everything committed after the slot's confirmed position, and
// begins to report. Until begin says what that position is, reports say only
// that we are there.
func (s *stream) start(ctx context.Context, slot string, publications []string) error {
	err := pglogrepl.StartReplication(ctx, s.conn, quote(slot), 0, pglogrepl.StartReplicationOptions{
		Mode: pglogrepl.LogicalReplication,
		PluginArgs: []string{
			"proto_version '2'", "streaming 'true'", "messages 'true'",
			fmt.Sprintf("publication_names '%s'", quoteList(publications)),
		},
	})
	if err != nil {
		return err
	}
	s.reporting.Go(s.reportAlways)
	return nil
}

// begin says where the stream began, and that it will be received from now on.
func (s *stream) begin(confirmed coherence.LSN) {
	s.reach(confirmed)
	s.confirm(confirmed)
	s.last.Store(time.Now().UnixNano())
}

// received is what comes on the stream: a message of the output plugin, or
// without one the server's word on where it is.
type received struct {
	at      coherence.LSN // where the message was found, or up to where everything was sent
	message []byte        // valid until the next is received
	reply   bool          // the server wants a word from us
}

// receive returns what comes next. It blocks until there is something or the
// connection ends; abort ends it.
func (s *stream) receive() (r received, err error) {
	for {
		msg, err := s.conn.ReceiveMessage(context.Background())
		if err != nil {
			return r, err
		}
		s.last.Store(time.Now().UnixNano())
		switch msg := msg.(type) {
		case *pgproto3.ErrorResponse:
			return r, pgconn.ErrorResponseToPgError(msg)
		case *pgproto3.CopyDone:
			return r, errors.New("the server ended the stream")
		case *pgproto3.CopyData:
			if len(msg.Data) == 0 {
				return r, errors.New("the server sent an empty message")
			}
			switch msg.Data[0] {
			case pglogrepl.XLogDataByteID:
				data, err := pglogrepl.ParseXLogData(msg.Data[1:])
				return received{at: coherence.LSN(data.WALStart), message: data.WALData}, err
			case pglogrepl.PrimaryKeepaliveMessageByteID:
				keepalive, err := pglogrepl.ParsePrimaryKeepaliveMessage(msg.Data[1:])
				return received{at: coherence.LSN(keepalive.ServerWALEnd), reply: keepalive.ReplyRequested}, err
			}
		}
	}
}

// farewell is why the server has ended the stream, or nil if it has not. What
// comes before that is lost.
func (s *stream) farewell() error {
	end := time.AfterFunc(time.Second, s.abort)
	for {
		_, err := s.receive()
		if err != nil && end.Stop() {
			return err
		}
		if err != nil {
			return nil
		}
	}
}

// report lets a status update be sent at once. It never blocks.
func (s *stream) report() { put(s.wake) }

// reportAlways sends status updates until the connection ends.
func (s *stream) reportAlways() {
	every := time.NewTicker(reportEvery)
	defer every.Stop()
	for {
		if err := s.send(); err != nil {
			select { // the server's last word may be unread yet
			case <-s.closing:
			case <-time.After(time.Second):
			}
			s.abort()
			return
		}
		select {
		case <-s.closing:
			return
		case <-every.C:
		case <-s.wake:
		}
	}
}

// send writes a status update that asks for an answer: a keepalive that says how
// far the server has sent. Of positions that are 0 the server takes no notice.
//
// It is written to the socket directly: when the connection ends, pgconn says
// goodbye through its own buffer, from a goroutine of its own.
func (s *stream) send() error {
	confirmed := s.confirmed.Load()
	update := []byte{pglogrepl.StandbyStatusUpdateByteID}
	for _, v := range []uint64{s.received.Load(), confirmed, confirmed} { // written, flushed, applied
		update = binary.BigEndian.AppendUint64(update, v)
	}
	update = binary.BigEndian.AppendUint64(update, uint64(time.Since(postgresEpoch).Microseconds()))
	message, err := (&pgproto3.CopyData{Data: append(update, 1)}).Encode(nil)
	if err != nil {
		return err
	}
	_, err = s.conn.Conn().Write(message)
	return err
}

// postgresEpoch is where timestamps of the protocol begin.
var postgresEpoch = time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)

func (s *stream) reach(received coherence.LSN) { raise(&s.received, received) }

func (s *stream) confirm(lsn coherence.LSN) { raise(&s.confirmed, lsn) }

func (s *stream) confirmedUpTo() coherence.LSN { return coherence.LSN(s.confirmed.Load()) }

// raise sets v to at least lsn. Each v has one writer.
func raise(v *atomic.Uint64, lsn coherence.LSN) { v.Store(max(v.Load(), uint64(lsn))) }

// silent reports that the server has sent nothing for too long.
func (s *stream) silent() bool {
	return time.Since(time.Unix(0, s.last.Load())) > s.silence
}

// abort ends the connection under whoever uses it.
func (s *stream) abort() { _ = s.conn.Conn().Close() }

func (s *stream) close() {
	close(s.closing)
	end(s.conn.Close)
	s.reporting.Wait()
}

// pid is the server process that serves this connection.
func (s *stream) pid() uint32 { return s.conn.PID() }
