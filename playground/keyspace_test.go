package playground

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/keyspacepb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func (c *testCluster) keyspaces(member int) keyspacepb.KeyspaceClient {
	return keyspacepb.NewKeyspaceClient(c.conn(c.PD()[member]))
}

// The steps that a keyspace's state can take, and who is refused with which words (PD:
// pkg/keyspace/util.go, stateTransitionTable; keyspace.go, UpdateKeyspaceStateByID).
func TestKeyspaceStates(t *testing.T) {
	const enabled, disabled, archived, tombstone = keyspacepb.KeyspaceState_ENABLED, keyspacepb.KeyspaceState_DISABLED,
		keyspacepb.KeyspaceState_ARCHIVED, keyspacepb.KeyspaceState_TOMBSTONE
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithAPIVersion(APIV2), WithKeyspaces("ks"))
		made := c.Now().Unix()
		for i, step := range []struct {
			id    uint32
			to    keyspacepb.KeyspaceState
			error string
		}{
			{1, enabled, ""}, {1, archived, "cannot change keyspace state from ENABLED to ARCHIVED"}, {1, disabled, ""},
			{1, tombstone, "cannot change keyspace state from DISABLED to TOMBSTONE"}, {1, enabled, ""}, {1, disabled, ""},
			{1, archived, ""}, {1, disabled, "cannot change keyspace state from ARCHIVED to DISABLED"}, {1, archived, ""},
			{1, tombstone, ""}, {1, enabled, "cannot change keyspace state from TOMBSTONE to ENABLED"},
			{0, disabled, "[PD:keyspace:ErrModifyDefaultKeyspace]cannot modify default keyspace's state"},
			{5, disabled, "[PD:keyspace:ErrKeyspaceNotFound]keyspace does not exist"},
		} {
			c.Advance(time.Minute)
			r, err := c.keyspaces(0).UpdateKeyspaceState(t.Context(), &keyspacepb.UpdateKeyspaceStateRequest{
				Header: c.header(), Keyspace: &keyspacepb.UpdateKeyspaceStateRequest_Id{Id: step.id}, State: step.to})
			if err != nil || r.Header.GetError().GetMessage() != step.error {
				t.Fatal(i, r, err)
			}
			if want := pdpb.ErrorType_ENTRY_NOT_FOUND; step.id == 5 && r.Header.Error.Type != want {
				t.Error(r)
			}
			if step.error == "" && r.Keyspace.State != step.to {
				t.Error(i, r)
			}
			if i == 0 && r.Keyspace.StateChangedAt != made || i == 2 && r.Keyspace.StateChangedAt != c.Now().Unix() {
				t.Error("changed at", r.Keyspace.StateChangedAt)
			}
		}
		if err := c.SetKeyspaceState("DEFAULT", KeyspaceDisabled); err == nil {
			t.Error("the default keyspace is disabled")
		}
		if err := c.SetKeyspaceState("ks", 4); err == nil {
			t.Error("there is a fifth state")
		}
		if r, err := c.keyspaces(0).GetAllKeyspaces(t.Context(), &keyspacepb.GetAllKeyspacesRequest{
			Header: c.header(), StartKeyspace: &keyspacepb.GetAllKeyspacesRequest_StartId{StartId: 1 << 24}}); err != nil ||
			r.Header.GetError().GetMessage() != "startID of the scan 16777216 exceeds spaceID Max 16777215" {
			t.Error(r, err)
		}
	})
}

// A watch of keyspaces begins with all of them and goes on with those that change; it is
// begun at the leader, and outlives its leadership (PD: server/keyspace_service.go).
func TestWatchKeyspaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithAPIVersion(APIV2), WithKeyspaces("a", "b"), WithMembers(3))
		watch := func(member int) keyspacepb.Keyspace_WatchKeyspacesClient {
			w, err := c.keyspaces(member).WatchKeyspaces(t.Context(), &keyspacepb.WatchKeyspacesRequest{Header: c.header()})
			if err != nil {
				t.Fatal(err)
			}
			return w
		}
		w := watch(0)
		if r, err := w.Recv(); err != nil || len(r.Keyspaces) != 3 || r.Keyspaces[2].Name != "b" {
			t.Fatal(r, err)
		}
		if _, err := watch(1).Recv(); status.Code(err) != codes.Unavailable {
			t.Fatal(err)
		}
		if err := c.TransferPD(1); err != nil {
			t.Fatal(err)
		}
		if err := c.SetKeyspaceState("b", KeyspaceDisabled); err != nil {
			t.Fatal(err)
		}
		if r, err := w.Recv(); err != nil || len(r.Keyspaces) != 1 || r.Keyspaces[0].State != keyspacepb.KeyspaceState_DISABLED {
			t.Fatal(r, err)
		}
		if err := c.SetKeyspaceConfig("a", "k", "v"); err != nil {
			t.Fatal(err)
		}
		if r, err := w.Recv(); err != nil || len(r.Keyspaces) != 1 || r.Keyspaces[0].Name != "a" || r.Keyspaces[0].Config["k"] != "v" {
			t.Fatal(r, err)
		}
		if err := c.SetKeyspaceConfig("a", "k", ""); err != nil {
			t.Fatal(err)
		}
		if r, err := w.Recv(); err != nil || len(r.Keyspaces[0].Config) != 0 {
			t.Fatal(r, err)
		}
	})
}

// A keyspace's states and config survive in a directory, and so does its own GC.
func TestKeyspacesInADirectory(t *testing.T) {
	dir := t.TempDir()
	c := start(t, WithDir(dir, false), WithAPIVersion(APIV2), WithKeyspaces("own", "off", "gone"))
	for _, err := range []error{
		c.SetKeyspaceConfig("own", "gc_management_type", "keyspace_level"),
		c.SetKeyspaceState("off", KeyspaceDisabled),
		c.SetKeyspaceState("gone", KeyspaceDisabled), c.SetKeyspaceState("gone", KeyspaceArchived),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := c.SetKeyspaceConfig("gone", "k", "v"); err == nil {
		t.Error("an archived keyspace's config changed")
	}
	own := &pdpb.KeyspaceScope{Keyspace: &pdpb.KeyspaceScope_KeyspaceId{KeyspaceId: 1}}
	if r, err := c.pdc().AdvanceTxnSafePoint(t.Context(), &pdpb.AdvanceTxnSafePointRequest{
		Header: c.header(), KeyspaceScope: own, Target: 7}); err != nil || r.NewTxnSafePoint != 7 {
		t.Fatal(r, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = start(t, WithDir(dir, false))
	r, err := c.keyspaces(0).GetAllKeyspaces(t.Context(), &keyspacepb.GetAllKeyspacesRequest{Header: c.header()})
	if err != nil || len(r.Keyspaces) != 4 || r.Keyspaces[1].Config["gc_management_type"] != "keyspace_level" ||
		r.Keyspaces[2].State != keyspacepb.KeyspaceState_DISABLED || r.Keyspaces[3].State != keyspacepb.KeyspaceState_ARCHIVED {
		t.Fatal(r, err)
	}
	// Only the enabled ones are told of (PD: iterateAllKeyspacesGCStates).
	s, err := c.pdc().GetAllKeyspacesGCStates(t.Context(), &pdpb.GetAllKeyspacesGCStatesRequest{Header: c.header()})
	if err != nil || len(s.GcStates) != 3 || s.GcStates[2].TxnSafePoint != 7 || !s.GcStates[2].IsKeyspaceLevelGc {
		t.Fatal(s, err)
	}
}
