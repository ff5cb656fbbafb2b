package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walcache/proxy/coherence"
	"walcache/proxy/sandbox/sandboxtest"
	"walcache/schema"
)

var (
	measureDrain  = flag.Int("measure.drain", 20_000, "rows that one transaction changes; a twentieth in as many transactions")
	measureRounds = flag.Int("measure.drain-rounds", 1, "how often it is drained")
)

// TestMeasure_DrainBesidePgRecvlogical has rows changed while nobody listens, in
// one transaction and in many, and times how long it takes from the start of
// `proxy listen` until all of it is known, and how long PostgreSQL's own client
// takes to receive the same from a slot of its own, and throw it away.
func TestMeasure_DrainBesidePgRecvlogical(t *testing.T) {
	d := newBacklog(t)
	for name, change := range map[string]string{
		"one transaction":   "UPDATE properties SET price = price + 1",
		"many transactions": fmt.Sprintf("DO $$ BEGIN FOR i IN 1..%d LOOP UPDATE properties SET price = price + 1 WHERE id = i; COMMIT; END LOOP; END $$", *measureDrain/20),
	} {
		var ours, theirs []drained
		for round := range *measureRounds {
			end := d.change(change)
			runs := []func(){
				func() { ours = append(ours, d.listen(end)) },
				func() { theirs = append(theirs, d.recvlogical(end)) },
			}
			if round%2 == 1 {
				slices.Reverse(runs)
			}
			for _, run := range runs {
				run()
			}
		}
		t.Logf("%s: proxy listen %v, pg_recvlogical %v", name, median(ours), median(theirs))
	}
}

// drained is what it took.
type drained struct {
	took   time.Duration
	memory int64 // resident at most, in bytes
}

func (d drained) String() string {
	return fmt.Sprintf("%.2f s, %.0f MiB", d.took.Seconds(), mib(d.memory))
}

func median(all []drained) drained {
	slices.SortFunc(all, func(a, b drained) int { return int(a.took - b.took) })
	return all[len(all)/2]
}

// backlog is a database, and two slots on it.
type backlog struct {
	*testing.T
	dsn, program, client, redis string
	db                          *pgx.Conn
}

func newBacklog(t *testing.T) *backlog {
	p := sandboxtest.OwnPostgres(t, map[string]string{"max_wal_size": "4GB"})
	d := &backlog{T: t, dsn: p.DSN("postgres"), program: filepath.Join(t.TempDir(), "proxy")}
	server, err := filepath.EvalSymlinks(p.Program("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	d.client = filepath.Join(filepath.Dir(server), "pg_recvlogical")
	d.redis = sandboxtest.OwnRedis(t).URL()
	if out, err := exec.Command("go", "build", "-o", d.program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	if err = schema.Up(t.Context(), d.dsn); err != nil {
		t.Fatal(err)
	}
	if d.db, err = pgx.Connect(t.Context(), d.dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.db.Close(context.Background()) })
	d.sql("INSERT INTO properties (title, description, price, location) SELECT 'a house', '', i, 'Nairobi' FROM generate_series(1, $1::int) i", *measureDrain)
	d.listen(0) // makes slot and publications
	d.sql("SELECT pg_create_logical_replication_slot('beside', 'pgoutput')")
	return d
}

func (d *backlog) sql(sql string, args ...any) {
	d.Helper()
	if _, err := d.db.Exec(d.Context(), sql, args...); err != nil {
		d.Fatal(err)
	}
}

// change returns where it ended.
func (d *backlog) change(sql string) (end coherence.LSN) {
	d.Helper()
	d.sql(sql)
	d.sql("CHECKPOINT") // what a checkpoint costs is nobody's
	var text string
	if err := d.db.QueryRow(d.Context(), "SELECT pg_current_wal_flush_lsn()::text").Scan(&text); err != nil {
		d.Fatal(err)
	}
	end, err := coherence.ParseLSN(text)
	if err != nil {
		d.Fatal(err)
	}
	return end
}

// measure runs a program until it has done what it is for, or has ended.
func (d *backlog) measure(cmd *exec.Cmd, end coherence.LSN, done func() bool) drained {
	d.Helper()
	began, took := time.Now(), time.Duration(0)
	cmd.Stderr = d.Output()
	if err := cmd.Start(); err != nil {
		d.Fatal(err)
	}
	if done != nil {
		for !done() {
			time.Sleep(5 * time.Millisecond)
		}
		took = time.Since(began)
		d.confirmed(end) // or it would be sent again
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			d.Fatal(err)
		}
	}
	if err := cmd.Wait(); err != nil {
		d.Fatal(err)
	}
	took = cmp.Or(took, time.Since(began))
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return drained{took, int64(usage.Maxrss) << 10} // KiB on Linux
}

// confirmed returns once the server knows that we need nothing up to end.
//
// Where a large transaction is measured, the slot's restart_lsn is to be past it
// too: it follows only with the server's next record of running transactions, and
// until then such a transaction is decoded again, and thrown away.
func (d *backlog) confirmed(end coherence.LSN) {
	d.Helper()
	const large = 100_000 // rows
	sandboxtest.Eventually(d, 2*time.Minute, func() error {
		var behind bool
		err := d.db.QueryRow(d.Context(),
			"SELECT bool_or(confirmed_flush_lsn < $1::pg_lsn OR $2 AND restart_lsn < $1::pg_lsn) FROM pg_replication_slots WHERE slot_name = 'walcache'",
			end.String(), *measureDrain >= large).Scan(&behind)
		if err == nil && behind {
			err = errors.New("the slot is not confirmed")
		}
		return err
	})
}

func (d *backlog) recvlogical(end coherence.LSN) drained {
	d.Helper()
	return d.measure(exec.Command(d.client, "--dbname="+d.dsn, "--slot=beside", "--start", "--endpos="+end.String(), "--file=/dev/null", "--no-loop",
		"--option=proto_version=2", "--option=streaming=on", "--option=messages=on", "--option=publication_names=walcache,walcache_updates"), end, nil)
}

// listen returns once everything up to end is known; if that is 0, once the
// listener vouches.
func (d *backlog) listen(end coherence.LSN) drained {
	d.Helper()
	const token = "0123456789abcdef0123456789abcdef"
	at, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		d.Fatal(err)
	}
	addr := at.Addr().String()
	_ = at.Close()
	cmd := exec.Command(d.program, "listen", "--database-url", d.dsn, "--redis-url", d.redis, "--admin-addr", addr)
	cmd.Env = append(os.Environ(), "ADMIN_TOKEN="+token)
	return d.measure(cmd, end, func() bool {
		request, err := http.NewRequestWithContext(d.Context(), "GET", "http://"+addr+"/status", nil)
		if err != nil {
			d.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+token)
		response, err := http.DefaultClient.Do(request)
		if err != nil { // it has just been started
			return false
		}
		defer response.Body.Close()
		var status struct {
			Coherence struct {
				Known   string `json:"known"`
				Vouches bool   `json:"vouches"`
			} `json:"coherence"`
		}
		if err := json.NewDecoder(response.Body).Decode(&status); err != nil {
			d.Fatal(err)
		}
		known, err := coherence.ParseLSN(status.Coherence.Known)
		return err == nil && known >= end && (end > 0 || status.Coherence.Vouches)
	})
}
