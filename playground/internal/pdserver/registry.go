package pdserver

import (
	"encoding/json"
	"fmt"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/etcd"
)

// Services beside PD make themselves known in its etcd while they run (PD: pkg/mcs/
// discovery). There a lease of five seconds takes the entry of one that is suspended away;
// here it stays until the process ends.

// registered are the services that have entries.
var registered = [...]string{"tso", "router"}

// registryEntry is an entry (PD: pkg/mcs/discovery/registry_entry.go).
type registryEntry struct {
	Name           string `json:"name"`
	ServiceAddr    string `json:"service-addr"`
	Version        string `json:"version"`
	GitHash        string `json:"git-hash"`
	DeployPath     string `json:"deploy-path"`
	StartTimestamp int64  `json:"start-timestamp"`
}

// servicesPath is where what services keep is (PD: pkg/utils/keypath/absolute_key_path.go).
func (pd *PD) servicesPath() string { return fmt.Sprintf("/ms/%d/", pd.ClusterID) }

// register has the entries of a member's services in etcd, or, if it has stopped, not.
func (pd *PD) register(m *Member, running bool) error {
	if !pd.Services {
		return nil
	}
	entry, err := json.Marshal(registryEntry{
		Name: m.proto().Name, ServiceAddr: m.url(), Version: version, StartTimestamp: pd.Now().Unix(),
	})
	if err != nil {
		return err
	}
	var writes []etcd.Write
	for _, service := range registered {
		key := pd.servicesPath() + service + "/registry/" + m.url()
		writes = append(writes, etcd.Write{Key: []byte(key), Value: entry, Delete: !running})
	}
	_, _, err = pd.kv.Apply(writes...)
	return err
}

// unregister removes what the services of an earlier run have left.
func (pd *PD) unregister() error {
	path := []byte(pd.servicesPath())
	left, _, err := pd.kv.Range(path, keys.PrefixEnd(path), 0)
	if err != nil {
		return err
	}
	var writes []etcd.Write
	for _, kv := range left {
		writes = append(writes, etcd.Write{Key: kv.Key, Delete: true})
	}
	_, _, err = pd.kv.Apply(writes...)
	return err
}
