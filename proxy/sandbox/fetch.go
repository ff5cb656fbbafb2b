package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// fetchBinaries downloads PostgreSQL into dir, unless an earlier call did; the
// archive is kept in ~/.embedded-postgres-go. Major 0 means any version.
func fetchBinaries(ctx context.Context, dir string, major int, as *account) (binaries, error) {
	programs := filepath.Join(dir, "bin")
	if found, err := findBinaries(programs, major, as); err == nil {
		return found, nil
	}
	versions := map[int]embeddedpostgres.PostgresVersion{
		0: embeddedpostgres.V17, 14: embeddedpostgres.V14, 15: embeddedpostgres.V15,
		16: embeddedpostgres.V16, 17: embeddedpostgres.V17, 18: embeddedpostgres.V18,
	}
	version, known := versions[major]
	if !known {
		return binaries{}, fmt.Errorf("version %d is not among those to fetch", major)
	}
	port, err := freePort()
	if err != nil {
		return binaries{}, err
	}
	// The library fetches only as a part of starting a server in its own way,
	// with a known password and without an end when we die. So it is given a
	// locale that initdb refuses: it stops right after the programs are there,
	// and whether they are is all that counts.
	server := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
		Version(version).
		BinariesPath(dir).
		RuntimePath(filepath.Join(dir, "runtime")).
		Locale("fetch-only").
		Port(uint32(port)).
		Logger(io.Discard))
	stopped := make(chan error, 1)
	go func() { stopped <- server.Start() }()
	select {
	case err = <-stopped:
	case <-ctx.Done(): // the download itself cannot be stopped; it ends with us
		return binaries{}, context.Cause(ctx)
	}
	if err == nil {
		return binaries{}, errors.Join(errors.New("the locale was not refused"), server.Stop())
	}
	found, findErr := findBinaries(programs, major, as)
	if findErr != nil {
		return binaries{}, err
	}
	return found, nil
}
