package sandbox

import (
	"errors"
	"testing"
)

func TestStartOnPort_AFreePortThatGotTakenIsReplaced(t *testing.T) {
	tried := map[int]bool{}
	err := startOnPort(0, func(port int) error {
		if tried[port] = true; len(tried) < 3 {
			return errPortTaken
		}
		return nil
	})
	if err != nil || len(tried) != 3 {
		t.Fatalf("%v after %d ports", err, len(tried))
	}
}

func TestStartOnPort_AWantedPortIsNotReplaced(t *testing.T) {
	tries := 0
	err := startOnPort(1234, func(int) error { tries++; return errPortTaken })
	if !errors.Is(err, errPortTaken) || tries != 1 {
		t.Fatalf("%v after %d tries", err, tries)
	}
}
