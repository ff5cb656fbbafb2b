package replication

import (
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// connectTimeout bounds each attempt to connect.
const connectTimeout = 5 * time.Second

// unreachable is how long the machine at the other end may acknowledge nothing.
// Whether the server on it is busy, or frozen, makes no difference: its kernel
// answers. So this can be short, and what ends it is a cable, a firewall or a
// machine that is gone.
const unreachable = 3 * time.Second

// dial prepares a connection to be missed soon when nobody is there any more.
func dial(config *pgconn.Config) {
	config.ConnectTimeout = connectTimeout
	dialer := net.Dialer{
		// While nothing is under way, the kernel asks.
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: int(unreachable / time.Second)},
		// While something is, it would try again for a quarter of an hour.
		Control: endUnacknowledged,
	}
	config.DialFunc = dialer.DialContext
}
