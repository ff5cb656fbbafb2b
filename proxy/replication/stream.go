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

// silence is how long the server may send nothing at all before the connection
// is taken for dead. It answers every status update of keep; an idle server says
// nothing on its own.
const silence = 10 * time.Second

// walSenderTimeout is asked for on our connection alone: a holder of the slot
// that froze would keep it for the server's default of a minute.
const walSenderTimeout = "5s"

// stream is a replication connection. The goroutine that calls receive owns its
// reading half; the sending half, status updates only, may be used by any.
type stream struct {
	conn *pgconn.PgConn
	last atomic.Int64 // when something was received, in Unix nanoseconds

	mu        sync.Mutex    // guards the following, and sending
	received  coherence.LSN // everything up to it is applied
	confirmed coherence.LSN // PostgreSQL may forget up to it
}

// openStream connects for replication; start begins the stream.
func openStream(ctx context.Context, databaseURL string) (*stream, error) {
	config, err := pgconn.ParseConfig(databaseURL)
	if err != nil {
		return nil, err
	}
	config.ConnectTimeout = connectTimeout
	params := config.RuntimeParams
	params["replication"] = "database"
	params["application_name"] = applicationName
	// Values reach tags as text, so their form must not depend on the server's
	// settings. Transactions that outgrow the work memory are streamed to us
	// before they commit, instead of holding back every commit behind them.
	params["client_encoding"] = "UTF8"
	params["datestyle"] = "ISO"
	params["options"] += " -c wal_sender_timeout=" + walSenderTimeout + " -c logical_decoding_work_mem=8MB"
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
	s := &stream{conn: conn}
	s.last.Store(time.Now().UnixNano())
	return s, nil
}

// start asks for everything committed after the slot's confirmed position.
func (s *stream) start(ctx context.Context, slot string, publications []string, confirmed coherence.LSN) error {
	s.received, s.confirmed = confirmed, confirmed
	return pglogrepl.StartReplication(ctx, s.conn, slot, 0, pglogrepl.StartReplicationOptions{
		Mode: pglogrepl.LogicalReplication,
		PluginArgs: []string{
			"proto_version '2'", "streaming 'true'", "messages 'true'",
			fmt.Sprintf("publication_names '%s'", quoteList(publications)),
		},
	})
}

// receive returns the next message of the stream: exactly one of its results is
// set. It blocks until there is one or the connection ends; abort ends it.
func (s *stream) receive() (*pglogrepl.XLogData, *pglogrepl.PrimaryKeepaliveMessage, error) {
	for {
		msg, err := s.conn.ReceiveMessage(context.Background())
		if err != nil {
			return nil, nil, err
		}
		s.last.Store(time.Now().UnixNano())
		switch msg := msg.(type) {
		case *pgproto3.ErrorResponse:
			return nil, nil, pgconn.ErrorResponseToPgError(msg)
		case *pgproto3.CopyDone:
			return nil, nil, errors.New("the server ended the stream")
		case *pgproto3.CopyData:
			if len(msg.Data) == 0 {
				return nil, nil, errors.New("the server sent an empty message")
			}
			switch msg.Data[0] {
			case pglogrepl.XLogDataByteID:
				data, err := pglogrepl.ParseXLogData(msg.Data[1:])
				return &data, nil, err
			case pglogrepl.PrimaryKeepaliveMessageByteID:
				keepalive, err := pglogrepl.ParsePrimaryKeepaliveMessage(msg.Data[1:])
				return nil, &keepalive, err
			}
		}
	}
}

// report sends a status update. With reply set, the server answers with a
// keepalive that says how far it has sent.
//
// It is written to the socket directly: when the connection ends, pgconn says
// goodbye through its own buffer, from a goroutine of its own.
func (s *stream) report(reply bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	update := []byte{pglogrepl.StandbyStatusUpdateByteID}
	for _, v := range []coherence.LSN{s.received, s.confirmed, s.confirmed} { // written, flushed, applied
		update = binary.BigEndian.AppendUint64(update, uint64(v))
	}
	update = binary.BigEndian.AppendUint64(update, uint64(time.Since(postgresEpoch).Microseconds()))
	update = append(update, 0)
	if reply {
		update[len(update)-1] = 1
	}
	message, err := (&pgproto3.CopyData{Data: update}).Encode(nil)
	if err != nil {
		return err
	}
	_, err = s.conn.Conn().Write(message)
	return err
}

// postgresEpoch is where timestamps of the protocol begin.
var postgresEpoch = time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)

func (s *stream) reach(received coherence.LSN) {
	s.mu.Lock()
	s.received = max(s.received, received)
	s.mu.Unlock()
}

func (s *stream) confirm(lsn coherence.LSN) {
	s.mu.Lock()
	s.confirmed = max(s.confirmed, lsn)
	s.mu.Unlock()
}

func (s *stream) confirmedUpTo() coherence.LSN {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.confirmed
}

// silent reports that the server has sent nothing for too long.
func (s *stream) silent() bool {
	return time.Since(time.Unix(0, s.last.Load())) > silence
}

// abort ends the connection under whoever uses it.
func (s *stream) abort() { _ = s.conn.Conn().Close() }

// pid is the server process that serves this connection.
func (s *stream) pid() uint32 { return s.conn.PID() }
