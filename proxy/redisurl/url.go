package redisurl

import (
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// target is what a URL says.
type target struct {
	kind     kind
	addrs    []string // host:port, or the path of a socket
	tls      *tls.Config
	username string
	password string
	master   string // as the Sentinels call it
	db       int

	sentinelUsername, sentinelPassword string
	clientName                         string
}

type kind uint8

const (
	single kind = iota
	sentinel
	cluster
)

// The reasons why a URL is refused. They repeat nothing of it: a password with
// a character that is not percent-encoded can turn up in any part.
var (
	errScheme = errors.New("not a Redis URL\n  try: redis://host:6379/0, rediss:// for TLS, unix:///path/to/socket, " +
		"redis+sentinel://host:26379,host:26379/NAME/0 or redis+cluster://host:7000,host:7001")
	errSyntax = errors.New("malformed Redis URL\n  try: redis://user:password@host:6379/0, " +
		"with every character of the password that is not a letter or a digit percent-encoded (/ is %2F, @ is %40)")
	errDB     = errors.New("the database in the Redis URL is not a number\n  try: redis://host:6379/0, and percent-encode the password's special characters")
	errMaster = errors.New("the Redis URL does not say which primary to ask the Sentinels for\n  try: redis+sentinel://host:26379/NAME/0, " +
		"with the name that stands in \"sentinel monitor NAME …\"")
	errClusterDB = errors.New("a Redis Cluster has database 0 alone\n  try: redis+cluster://host:7000,host:7001")
	errOneHost   = errors.New("the Redis URL names several servers, and neither a cluster nor Sentinels\n  try: redis+cluster:// or redis+sentinel://")
	errSocket    = errors.New("the Redis URL names no socket\n  try: unix:///path/to/socket?db=0")
	errParameter = errors.New("the Redis URL has a parameter that is not known\n  try: client_name, skip_verify with TLS, db with unix://, " +
		"sentinel_username and sentinel_password with Sentinels; timeouts and pools are set by this program")
)

// parse takes a URL apart. It is not left to net/url as a whole, which knows
// one host, nor to go-redis's ParseURL, whose errors quote it.
func parse(raw string) (target, error) {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return target{}, errScheme
	}
	var t target
	transport, way, _ := strings.Cut(strings.ToLower(scheme), "+")
	switch way {
	case "":
		t.kind = single
	case "sentinel":
		t.kind = sentinel
	case "cluster":
		t.kind = cluster
	default:
		return target{}, errScheme
	}
	switch {
	case transport == "redis":
	case transport == "rediss":
		t.tls = &tls.Config{MinVersion: tls.VersionTLS12} // the name to verify is that of each server
	case transport == "unix" && t.kind == single:
		return t, t.parseSocket(rest)
	default:
		return target{}, errScheme
	}
	return t, t.parseServers(rest)
}

// parseServers reads user:password@host:port,host:port/path?query.
func (t *target) parseServers(rest string) error {
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	authority, rest := rest[:end], rest[end:]
	hosts := authority[strings.LastIndexByte(authority, '@')+1:]
	user := strings.TrimSuffix(authority, hosts)
	u, err := url.Parse("redis://" + user + "host" + rest)
	if err != nil || u.Fragment != "" {
		return errSyntax
	}
	t.takeUser(u)
	port := "6379"
	if t.kind == sentinel {
		port = "26379"
	}
	for host := range strings.SplitSeq(hosts, ",") {
		addr, err := address(host, port)
		if err != nil {
			return err
		}
		t.addrs = append(t.addrs, addr)
	}
	if t.kind == single && len(t.addrs) > 1 {
		return errOneHost
	}
	if err := t.takePath(strings.Trim(u.Path, "/")); err != nil {
		return err
	}
	return t.takeQuery(u)
}

// parseSocket reads user:password@/path?query.
func (t *target) parseSocket(rest string) error {
	u, err := url.Parse("unix://" + rest)
	switch {
	case err != nil || u.Fragment != "":
		return errSyntax
	case u.Host != "" || u.Path == "" || u.Path == "/":
		return errSocket
	}
	t.takeUser(u)
	t.addrs = []string{u.Path}
	return t.takeQuery(u)
}

func (t *target) takeUser(u *url.URL) {
	t.username = u.User.Username()
	t.password, _ = u.User.Password()
}

// address is host:port of one server.
func address(host, port string) (string, error) {
	u, err := url.Parse("redis://" + host)
	if err != nil || u.Host != host || u.Hostname() == "" || strings.Contains(u.Hostname(), ":") && host[0] != '[' {
		return "", errSyntax
	}
	if u.Port() != "" {
		port = u.Port()
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return "", errSyntax
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}

// takePath reads the database, and before it the primary's name where there are
// Sentinels.
func (t *target) takePath(path string) error {
	db := path
	if t.kind == sentinel {
		t.master, db, _ = strings.Cut(path, "/")
		if t.master == "" {
			return errMaster
		}
	}
	if err := t.takeDB(db); err != nil {
		return err
	}
	if t.kind == cluster && t.db != 0 {
		return errClusterDB
	}
	return nil
}

func (t *target) takeDB(db string) error {
	if db == "" {
		return nil
	}
	n, err := strconv.Atoi(db)
	if err != nil || n < 0 {
		return errDB
	}
	t.db = n
	return nil
}

func (t *target) takeQuery(u *url.URL) error {
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return errSyntax
	}
	for name, values := range query {
		value := values[len(values)-1]
		switch {
		case name == "client_name":
			t.clientName = value
		case name == "db" && u.Scheme == "unix":
			if err := t.takeDB(value); err != nil {
				return err
			}
		case name == "sentinel_username" && t.kind == sentinel:
			t.sentinelUsername = value
		case name == "sentinel_password" && t.kind == sentinel:
			t.sentinelPassword = value
		case name == "skip_verify" && t.tls != nil:
			skip, err := strconv.ParseBool(value)
			if err != nil {
				return errParameter
			}
			t.tls.InsecureSkipVerify = skip
		default:
			return errParameter
		}
	}
	return nil
}
