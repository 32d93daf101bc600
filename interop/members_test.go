package interop

import (
	"fmt"
	"testing"
)

// The official client while PD's leader changes by every way there is, with timestamps from
// PD and from a service beside it.
func TestOfficialMembers(t *testing.T) {
	for _, args := range [][]string{nil, {"--services"}} {
		t.Run(fmt.Sprint(args), func(t *testing.T) {
			c := start(t, append([]string{"--members", "3"}, args...)...)
			client := c.officialTxn(t)
			n := 0
			write := func(what string) {
				t.Helper()
				n++
				tx, err := client.Begin()
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if err := tx.Set([]byte("k"), fmt.Append(nil, n)); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if err := tx.Commit(t.Context()); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if tx, err = client.Begin(); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if got, err := tx.Get(t.Context(), []byte("k")); err != nil || string(got) != fmt.Sprint(n) {
					t.Fatalf("%s: %q %v", what, got, err)
				}
			}
			write("at first")
			member := func(i int) map[string]any { return map[string]any{"member": i} }
			c.control(t, "transfer-pd", member(1))
			write("transferred")
			c.control(t, "stop", member(1))
			write("the leader stopped")
			c.control(t, "start", member(1))
			c.control(t, "move", member(0))
			write("the leader moved")
			c.control(t, "move", map[string]any{"store": 1})
			c.split(t, "txn", "j")
			write("a store moved")
			if c.calls(t, "FindGroupByKeyspaceID") > 0 != (len(args) > 0) {
				t.Error("the client asked for a group:", c.calls(t, "FindGroupByKeyspaceID"))
			}
		})
	}
}
