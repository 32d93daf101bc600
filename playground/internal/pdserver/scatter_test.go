package pdserver

import (
	"fmt"
	"testing"
	"time"
)

// Groups that nobody scatters in any more are forgotten, whatever their names (PD:
// pkg/schedule/scatter/region_scatterer.go, gcTTL).
func TestForgottenGroups(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := newScatterer(&PD{Config: Config{Now: func() time.Time { return now }}}, 1)
	for i := range 100 {
		s.spread(fmt.Sprint("old-", i)).peers[1]++
	}
	now = now.Add(spreadLife - time.Second)
	s.spread("young").peers[1]++
	now = now.Add(time.Second)
	if s.spread("young").peers[1] != 1 || len(s.groups) != 1 {
		t.Fatalf("%d groups", len(s.groups))
	}
}
