package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// trial is a command as the proxy sends it. Those that write are about keys that
// nobody reads, should they ever be executed.
type trial struct {
	key  string
	args []any
}

func trials(prefix string) (all []trial) {
	on := func(key string, commands ...string) {
		for _, command := range commands {
			t := trial{key: prefix + key}
			for word := range strings.FieldsSeq(command) {
				if word == "KEY" {
					word = t.key
				}
				t.args = append(t.args, word)
			}
			all = append(all, t)
		}
	}
	on("", "ping", "info", "scan 0")
	on("log", "xread streams KEY 0")
	on("log:doctor", "xadd KEY * e x", "xtrim KEY minid ~ 0")
	on("checkpoint", "get KEY", "getrange KEY 0 1", "type KEY", "eval return 1 KEY", "evalsha "+strings.Repeat("0", 40)+" 1 KEY")
	on("cluster:doctor", "setnx KEY x")
	on("members:doctor", "hset KEY f x", "hgetall KEY", "hdel KEY f")
	on("page:doctor", "set KEY x px 1000", "pttl KEY", "unlink KEY")
	return all
}

// commands tries each command in a transaction that is discarded: Redis checks
// rights, memory and role as a command is queued, and executes nothing.
func (r *redisServer) commands(ctx context.Context) error {
	refused := map[string][]string{} // commands, by reason
	var reasons []string
	for _, t := range trials(r.config.Prefix) {
		c, err := r.nodeOf(ctx, t.key)
		if err != nil {
			return err
		}
		reason, told, err := try(ctx, c, t.args)
		if err != nil {
			return err
		}
		if !told {
			r.ok("commands", "not told, because the user may not try them (MULTI, DISCARD)")
			return nil
		}
		if reason == "" {
			continue
		}
		if refused[reason] == nil {
			reasons = append(reasons, reason)
		}
		refused[reason] = append(refused[reason], fmt.Sprint(t.args[0]))
	}
	if len(reasons) == 0 {
		r.ok("commands", "the user may send all that the proxy sends")
	}
	for _, reason := range reasons {
		r.add("commands", r.refusal(reason, refused[reason]))
	}
	return nil
}

// try sends one command between MULTI and DISCARD. Where those two are not
// allowed, the command would be executed, so they are tried alone before.
func try(ctx context.Context, c *redis.Client, command []any) (reason string, told bool, err error) {
	for _, middle := range [][][]any{nil, {command}} {
		all, err := c.Pipelined(ctx, func(p redis.Pipeliner) error {
			p.Do(ctx, "multi")
			for _, m := range middle {
				p.Do(ctx, m...)
			}
			p.Do(ctx, "discard")
			return nil
		})
		if len(all) == 0 {
			return "", false, err
		}
		first, last := all[0].Err(), all[len(all)-1].Err()
		switch {
		case first != nil && !isAnswer(first):
			return "", false, first
		case first != nil || last != nil:
			return "", false, nil
		case middle != nil && all[1].Err() != nil:
			reason, _, _ = strings.Cut(all[1].Err().Error(), " ")
			return reason, true, nil
		}
	}
	return "", true, nil
}

// isAnswer reports whether an error is what Redis answered.
func isAnswer(err error) bool {
	return errors.As(err, new(redis.Error))
}

func (r *redisServer) nodeOf(ctx context.Context, key string) (*redis.Client, error) {
	switch c := r.client.(type) {
	case *redis.ClusterClient:
		return c.MasterForKey(ctx, key)
	case *redis.Client:
		return c, nil
	}
	return nil, fmt.Errorf("unknown client %T", r.client)
}

// refusal explains the code of an error that some commands were answered with.
func (r *redisServer) refusal(code string, commands []string) Finding {
	f := Finding{Status: Error, What: "refused: " + strings.Join(commands, ", "), Why: "the log and the pages need every one of them"}
	switch code {
	case "NOPERM":
		f.Fix = "ACL SETUSER <user> ~" + r.config.Prefix + "* +" + strings.Join(commands, " +")
	case "OOM": // which in a transaction all are refused with
		f.What = "it is full, and refuses writes"
		f.Fix = "raise maxmemory, and CONFIG SET maxmemory-policy volatile-lru"
	case "READONLY":
		f.What += " (read-only)"
		f.Fix = "name the primary in REDIS_URL (--redis-url)"
	default:
		f.What += " (" + code + ")"
		f.Fix = "use Redis 6.2 or later, or Valkey, and see what its log says"
	}
	return f
}
