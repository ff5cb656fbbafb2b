package replication

import (
	"net"
	"syscall"
	"testing"

	"walcache/proxy/sandbox/sandboxtest"
)

func TestDial_NoticesThatNobodyIsThere(t *testing.T) {
	t.Parallel()
	db, err := connect(t.Context(), sandboxtest.Postgres(t), applicationName)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context())
	raw, err := db.PgConn().Conn().(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		for name, c := range map[string]struct{ option, want int }{"keepalive": {syscall.TCP_KEEPIDLE, 1}, "user timeout": {tcpUserTimeout, 3000}} {
			if got, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, c.option); err != nil || got != c.want {
				t.Errorf("%s: %d, %v", name, got, err)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
}
