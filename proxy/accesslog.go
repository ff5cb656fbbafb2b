package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sync/errgroup"

	"walcache/proxy/accesslog"
)

// keepsAccessLog has an access log written by what it returns, until ctx ends. If
// the log is a file, then from now on SIGHUP does not stop the process: whoever
// rotates logs says with it that the file has another name by now.
func keepsAccessLog(ctx context.Context, l *accesslog.Log, log *slog.Logger) func() error {
	if !l.IsFile() {
		return func() error { return l.Run(ctx) }
	}
	rotated := make(chan os.Signal, 1)
	signal.Ignore(syscall.SIGHUP) // which nobody else is told of any more
	signal.Notify(rotated, syscall.SIGHUP)
	return func() error {
		defer signal.Stop(rotated)
		var group errgroup.Group
		group.Go(func() error { return l.Run(ctx) })
		for {
			select {
			case <-ctx.Done():
				return group.Wait()
			case <-rotated:
			}
			if err := l.Reopen(); err != nil {
				log.Error("the access log goes on in the file before", "err", err)
			} else {
				log.Info("access log reopened")
			}
		}
	}
}
