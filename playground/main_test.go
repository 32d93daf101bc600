package playground

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if killChild() {
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}
