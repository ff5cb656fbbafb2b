package redisurl

import (
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

func TestParse_ReadsEveryWayToRunRedis(t *testing.T) {
	for _, c := range []struct {
		url  string
		want target
		tls  bool
	}{
		{url: "redis://host", want: target{addrs: []string{"host:6379"}}},
		{url: "redis://host:1/", want: target{addrs: []string{"host:1"}}},
		{url: "redis://:p%40s%2Fs@host:1/2", want: target{addrs: []string{"host:1"}, password: "p@s/s", db: 2}},
		{url: "redis://user:a@b@[::1]", want: target{addrs: []string{"[::1]:6379"}, username: "user", password: "a@b"}},
		{url: "REDISS://host/1?skip_verify=true", want: target{addrs: []string{"host:6379"}, db: 1}, tls: true},
		{url: "unix:///run/redis.sock", want: target{addrs: []string{"/run/redis.sock"}}},
		{url: "unix://user:pw@/run/redis.sock?db=3", want: target{addrs: []string{"/run/redis.sock"}, username: "user", password: "pw", db: 3}},
		{url: "redis+sentinel://a,b:2/main", want: target{kind: sentinel, addrs: []string{"a:26379", "b:2"}, master: "main"}},
		{url: "rediss+sentinel://user:pw@a,[::1]:2/main/4?sentinel_username=su&sentinel_password=s%26p&client_name=me", tls: true,
			want: target{kind: sentinel, addrs: []string{"a:26379", "[::1]:2"}, username: "user", password: "pw", master: "main", db: 4,
				sentinelUsername: "su", sentinelPassword: "s&p", clientName: "me"}},
		{url: "redis+cluster://:pw@a:7000,b:7001,c", want: target{kind: cluster, addrs: []string{"a:7000", "b:7001", "c:6379"}, password: "pw"}},
		{url: "rediss+cluster://a:7000/0", want: target{kind: cluster, addrs: []string{"a:7000"}}, tls: true},
	} {
		got, err := parse(c.url)
		if err != nil {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		if (got.tls != nil) != c.tls {
			t.Errorf("%s: TLS %t", c.url, got.tls != nil)
		}
		got.tls = nil
		if !slices.Equal(got.addrs, c.want.addrs) {
			t.Errorf("%s: addresses %q", c.url, got.addrs)
		}
		got.addrs, c.want.addrs = nil, nil
		if got.String() != c.want.String() {
			t.Errorf("%s: %s, want %s", c.url, got, c.want)
		}
	}
}

// String is for comparing.
func (t target) String() string {
	return strings.Join([]string{string('0' + rune(t.kind)), t.username, t.password, t.master, string('0' + rune(t.db)),
		t.sentinelUsername, t.sentinelPassword, t.clientName}, "|")
}

const secret = "s3cr3t"

// refused are URLs that somebody may well write, with the secret where it ends
// up when it was not encoded.
var refused = map[string]error{
	"":                                         errScheme,
	secret:                                     errScheme,
	"localhost:6379":                           errScheme,
	secret + "://host":                         errScheme,
	"http://host":                              errScheme,
	"redis+ring://host":                        errScheme,
	"unix+cluster:///run/redis.sock":           errScheme,
	"redis://":                                 errSyntax,
	"redis://:6379":                            errSyntax,
	"redis://host:port":                        errSyntax,
	"redis://host:0":                           errSyntax,
	"redis://host:65536":                       errSyntax,
	"redis://::1":                              errSyntax,
	"redis://:x/" + secret + "@host":           errSyntax,
	"redis://:1#" + secret + "@host":           errSyntax,
	"redis://:1?" + secret + "@host":           errSyntax,
	"redis://:%zz" + secret + "@host":          errSyntax,
	"redis://:" + secret + " @ho st":           errSyntax,
	"redis://host/" + secret:                   errDB,
	"redis://host/-1":                          errDB,
	"redis://host/0/1":                         errDB,
	"redis://a,b":                              errOneHost,
	"redis+sentinel://a,b":                     errMaster,
	"redis+sentinel://a/main/x":                errDB,
	"redis+cluster://a/1":                      errClusterDB,
	"redis+cluster://a,,b":                     errSyntax,
	"unix://":                                  errSocket,
	"unix://run/redis.sock":                    errSocket,
	"redis://host?read_timeout=3s":             errParameter,
	"redis://host?db=1":                        errParameter,
	"redis://host?" + secret + "=1":            errParameter,
	"redis://host?skip_verify=true":            errParameter,
	"rediss://host?skip_verify=" + secret:      errParameter,
	"redis://host?sentinel_password=" + secret: errParameter,
}

func TestParse_RefusalsSayWhatToTryAndNotThePassword(t *testing.T) {
	for url, want := range refused {
		_, err := Open(url, nil)
		if err != want {
			t.Errorf("%s: %v, want %v", url, err, want)
		}
		if err != nil && (strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), "\n  try: ")) {
			t.Errorf("%s: %q", url, err)
		}
		if Address(url) != "" {
			t.Errorf("%s has the address %s", url, Address(url))
		}
	}
}

func TestAddress_NamesTheServersAlone(t *testing.T) {
	for url, want := range map[string]string{
		"redis://u:" + secret + "@host/1":                                       "host:6379",
		"unix://:" + secret + "@/run/redis.sock":                                "/run/redis.sock",
		"redis+sentinel://:" + secret + "@a,b/main?sentinel_password=" + secret: "a:26379,b:26379/main",
		"redis+cluster://:" + secret + "@a:1,b:2":                               "cluster a:1,b:2",
	} {
		if got := Address(url); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestOpen_SetsWhatGoRedisWouldDefault(t *testing.T) {
	for _, url := range []string{"redis://h", "rediss://h", "unix:///s", "redis+sentinel://h/main", "redis+cluster://h"} {
		adjusted := false
		c, err := Open(url, func(o *redis.UniversalOptions) {
			adjusted = true
			if o.MaxRetries != -1 || o.DialerRetries != 1 || o.DialTimeout == 0 || o.ReadTimeout == 0 || o.WriteTimeout == 0 || o.PoolTimeout == 0 ||
				!o.ContextTimeoutEnabled || o.ReadOnly || o.RouteByLatency || o.RouteRandomly || o.MaintNotificationsConfig.IsEnabled() {
				t.Errorf("%s: %+v", url, o)
			}
			o.PoolSize = 3
		})
		if err != nil || !adjusted {
			t.Fatalf("%s: adjusted %t, %v", url, adjusted, err)
		}
		switch c := c.(type) {
		case *redis.Client:
			if c.Options().MaxRetries != 0 || c.Options().PoolSize != 3 {
				t.Errorf("%s: %d retries, pool of %d", url, c.Options().MaxRetries, c.Options().PoolSize)
			}
		case *redis.ClusterClient:
			if c.Options().MaxRetries != -1 || c.Options().MaxRedirects != maxRedirects || c.Options().PoolSize != 3 {
				t.Errorf("%s: %+v", url, c.Options())
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for url := range refused {
		f.Add(url)
	}
	for _, url := range []string{"redis://u:p@h:1/2", "unix:///s?db=1", "redis+sentinel://a,b:2/m/1?sentinel_password=x", "redis+cluster://a,[::1]:7"} {
		f.Add(url)
	}
	f.Fuzz(func(t *testing.T, url string) {
		got, err := parse(url)
		if err != nil {
			if _, known := map[error]bool{errScheme: true, errSyntax: true, errDB: true, errMaster: true, errClusterDB: true,
				errOneHost: true, errSocket: true, errParameter: true}[err]; !known {
				t.Fatalf("%q: an error that may quote it: %v", url, err)
			}
			return
		}
		if len(got.addrs) == 0 || slices.Contains(got.addrs, "") {
			t.Fatalf("%q: addresses %q", url, got.addrs)
		}
	})
}
