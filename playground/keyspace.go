package playground

import (
	"errors"
	"fmt"
	"slices"

	"github.com/pingcap/kvproto/pkg/keyspacepb"
)

// KeyspaceState is what a keyspace is.
type KeyspaceState uint8

// The states. A keyspace is made enabled; enabled ones can be disabled and disabled ones
// enabled again or archived, and archived ones end as tombstones.
const (
	KeyspaceEnabled KeyspaceState = iota
	KeyspaceDisabled
	KeyspaceArchived
	KeyspaceTombstone
)

var keyspaceStates = [...]string{"enabled", "disabled", "archived", "tombstone"}

// String returns "enabled", "disabled", "archived" or "tombstone".
func (s KeyspaceState) String() string {
	if s > KeyspaceTombstone {
		return fmt.Sprintf("KeyspaceState(%d)", uint8(s))
	}
	return keyspaceStates[s]
}

// SetKeyspaceState moves a keyspace to a state that may follow its own. The one named
// DEFAULT stays enabled. As in PD, clients hear of it only if they ask: the stores serve
// the keyspace all the same.
func (c *Cluster) SetKeyspaceState(keyspace string, state KeyspaceState) (err error) {
	defer c.note("set-keyspace-state", keyspaceStateArgs{keyspace, state.String()}, &err)()
	if state > KeyspaceTombstone {
		return fmt.Errorf("playground: %v is no state of a keyspace", state)
	}
	return keyspaceError(keyspace, c.pd.SetKeyspaceState(keyspace, keyspacepb.KeyspaceState(state)))
}

// SetKeyspaceConfig sets an entry of a keyspace's config; an empty value removes it. With
// "gc_management_type" as "keyspace_level" a keyspace has safe points and barriers of its
// own, with "region_bound_type" as "raw" it is there for clients once its raw keys have
// regions of their own.
func (c *Cluster) SetKeyspaceConfig(keyspace, key, value string) (err error) {
	defer c.note("set-keyspace-config", keyspaceConfigArgs{keyspace, key, value}, &err)()
	if key == "" {
		return errors.New("playground: an entry of a keyspace's config has a name")
	}
	entry := map[string]*string{key: &value}
	if value == "" {
		entry[key] = nil
	}
	return keyspaceError(keyspace, c.pd.SetKeyspaceConfig(keyspace, entry))
}

func keyspaceError(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("playground: keyspace %q: %w", name, err)
}

type (
	keyspaceStateArgs struct {
		Keyspace string `json:"keyspace"`
		State    string `json:"state"`
	}
	keyspaceConfigArgs struct {
		Keyspace string `json:"keyspace"`
		Key      string `json:"key"`
		Value    string `json:"value"`
	}
)

type keyspaceView struct {
	ID     uint32            `json:"id"`
	Name   string            `json:"name"`
	State  string            `json:"state"`
	Config map[string]string `json:"config,omitempty"`
}

func (c *Cluster) keyspaceViews() []keyspaceView {
	all := []keyspaceView{}
	for _, k := range c.pd.Keyspaces() {
		all = append(all, keyspaceView{k.GetId(), k.Name, KeyspaceState(k.State).String(), k.Config})
	}
	return all
}

// keyspaceVerbs are those of keyspaces.
func (c *Cluster) keyspaceVerbs(all map[string]verb) {
	all["set-keyspace-state"] = verbOf(func(q keyspaceStateArgs) (any, error) {
		state := slices.Index(keyspaceStates[:], q.State)
		if state < 0 {
			return nil, fmt.Errorf("playground: there is no state %q of a keyspace", q.State)
		}
		return done(c.SetKeyspaceState(q.Keyspace, KeyspaceState(state)))
	})
	all["set-keyspace-config"] = verbOf(func(q keyspaceConfigArgs) (any, error) {
		return done(c.SetKeyspaceConfig(q.Keyspace, q.Key, q.Value))
	})
}
