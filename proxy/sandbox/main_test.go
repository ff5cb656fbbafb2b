package sandbox_test

import (
	"os"
	"testing"

	"walcache/proxy/sandbox/sandboxtest"
)

func TestMain(m *testing.M) {
	if os.Getenv(parentVariable) != "" {
		runParent()
		return
	}
	sandboxtest.Main(m)
}
