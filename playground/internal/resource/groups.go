// Package resource is PD's resource manager: the resource groups of keyspaces, and the
// request units that they grant to clients. Its rules are PD's (tikv/pd,
// pkg/mcs/resourcemanager/server); limits of whole keyspaces, which only PD's HTTP
// interface sets, are not there.
package resource

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	rmpb "github.com/pingcap/kvproto/pkg/resource_manager"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/etcd"
)

// DefaultGroup is the name of the group that every keyspace has.
const DefaultGroup = "default"

const (
	nullKeyspace   = 0xffffffff
	maxName        = 32
	middlePriority = 8
	maxPriority    = 16
	saveEvery      = time.Minute // of the states
)

// Where they are in etcd (PD: pkg/utils/keypath/resource_group.go): those of the null
// keyspace are where they were before there were keyspaces.
const (
	settingsPrefix         = "resource_group/settings/"
	statesPrefix           = "resource_group/states/"
	keyspaceSettingsPrefix = "resource_group/keyspace/settings/"
	keyspaceStatesPrefix   = "resource_group/keyspace/states/"
	controllerKey          = "resource_group/controller"
)

// controller is the configuration that clients read, by default (PD: config.go,
// ControllerConfig): what a request costs, and how long a client waits for tokens.
const controller = `{"degraded-mode-wait-duration":"0s","ltb-max-wait-duration":"30s","ltb-token-rpc-max-delay":"1s",` +
	`"request-unit":{"read-base-cost":0.125,"read-per-batch-base-cost":0.5,"read-cost-per-byte":0.0000152587890625,` +
	`"write-base-cost":1,"write-per-batch-base-cost":1,"write-cost-per-byte":0.0009765625,"read-cpu-ms-cost":0.3333333333333333},` +
	`"enable-controller-trace-log":"false","push-metrics-address":"","push-metrics-interval":"0s"}`

// Groups are the resource groups of all keyspaces. Its methods may be called
// concurrently.
type Groups struct {
	kv    *etcd.KV
	known func(keyspace uint32) bool

	mu    sync.Mutex
	all   map[uint32]map[string]*group // by keyspace and name
	saved time.Time                    // the states
}

// Open returns the groups that kv has, and lets it have the default ones. known tells
// whether there is a keyspace.
func Open(kv *etcd.KV, known func(keyspace uint32) bool) (*Groups, error) {
	g := &Groups{kv: kv, known: known, all: make(map[uint32]map[string]*group)}
	config, _, err := kv.Range([]byte(controllerKey), nil, 0)
	if err == nil && len(config) == 0 {
		err = kv.Put(controllerKey, []byte(controller))
	}
	if err != nil {
		return nil, err
	}
	if err := g.load(settingsPrefix, keyspaceSettingsPrefix, g.loadSettings); err != nil {
		return nil, err
	}
	if err := g.load(statesPrefix, keyspaceStatesPrefix, g.loadState); err != nil {
		return nil, err
	}
	return g, g.need(nullKeyspace)
}

// load visits the null keyspace's entries and those of the others.
func (g *Groups) load(null, keyspaces string, visit func(keyspace uint32, name string, data []byte) error) error {
	for _, prefix := range []string{null, keyspaces} {
		pairs, _, err := g.kv.Range([]byte(prefix), keys.PrefixEnd([]byte(prefix)), 0)
		if err != nil {
			return err
		}
		for _, p := range pairs {
			keyspace, name := uint64(nullKeyspace), string(p.Key[len(prefix):])
			if prefix == keyspaces {
				id, rest, _ := strings.Cut(name, "/")
				if keyspace, err = strconv.ParseUint(id, 10, 32); err != nil {
					return fmt.Errorf("playground: the directory's resource group %q is damaged: %w", p.Key, err)
				}
				name = rest
			}
			if err := visit(uint32(keyspace), name, p.Value); err != nil {
				return fmt.Errorf("playground: the directory's resource group %q is damaged: %w", p.Key, err)
			}
		}
	}
	return nil
}

func (g *Groups) loadSettings(keyspace uint32, name string, data []byte) error {
	var p rmpb.ResourceGroup
	if err := p.Unmarshal(data); err != nil {
		return err
	}
	g.put(keyspace, newGroup(&p))
	return nil
}

func (g *Groups) loadState(keyspace uint32, name string, data []byte) error {
	if of := g.all[keyspace][name]; of != nil {
		return of.setState(data)
	}
	return nil
}

func (g *Groups) put(keyspace uint32, of *group) {
	if g.all[keyspace] == nil {
		g.all[keyspace] = make(map[string]*group)
	}
	g.all[keyspace][of.name] = of
}

// refused is an error in PD's words (PD: pkg/errs/errno.go).
func refused(code, format string, args ...any) error {
	return fmt.Errorf("[PD:resourcemanager:"+code+"]"+format, args...)
}

func unknownGroup(name string) error {
	return refused("ErrGroupNotExists", "the %s resource group does not exist", name)
}

func paths(keyspace uint32, name string) (settings, states string) {
	if keyspace == nullKeyspace {
		return settingsPrefix + name, statesPrefix + name
	}
	of := strconv.FormatUint(uint64(keyspace), 10) + "/" + name
	return keyspaceSettingsPrefix + of, keyspaceStatesPrefix + of
}

// need gives a keyspace its default group. Callers hold the lock, or are alone.
func (g *Groups) need(keyspace uint32) error {
	if g.all[keyspace][DefaultGroup] != nil {
		return nil
	}
	return g.add(keyspace, defaultGroup())
}

// add saves a group, in place of one of its name.
func (g *Groups) add(keyspace uint32, of *group) error {
	settings, err := of.proto(keyspace, true).Marshal()
	if err != nil {
		return err
	}
	state, err := of.state()
	if err != nil {
		return err
	}
	inSettings, inStates := paths(keyspace, of.name)
	_, _, err = g.kv.Apply(etcd.Write{Key: []byte(inSettings), Value: settings}, etcd.Write{Key: []byte(inStates), Value: state})
	if err == nil {
		g.put(keyspace, of)
	}
	return err
}

// keyspaceOf finds a keyspace's groups: one that never had any has them once somebody
// asks for its default group (PD: manager.go, accessKeyspaceResourceGroupManager).
func (g *Groups) keyspaceOf(keyspace uint32, name string) (map[string]*group, error) {
	if name == DefaultGroup {
		if err := g.need(keyspace); err != nil {
			return nil, err
		}
	}
	if g.all[keyspace] == nil {
		return nil, refused("ErrKeyspaceNotExists", "the keyspace does not exist with id %d", keyspace)
	}
	return g.all[keyspace], nil
}

// Get returns a group, with what was used of it if stats is set.
func (g *Groups) Get(keyspace uint32, name string, stats bool) (*rmpb.ResourceGroup, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	of, err := g.keyspaceOf(keyspace, name)
	switch {
	case err != nil:
		return nil, err
	case of[name] == nil:
		return nil, unknownGroup(name)
	}
	return of[name].proto(keyspace, stats), nil
}

// List returns a keyspace's groups by name.
func (g *Groups) List(keyspace uint32, stats bool) ([]*rmpb.ResourceGroup, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	of, err := g.keyspaceOf(keyspace, DefaultGroup)
	var all []*rmpb.ResourceGroup
	for _, name := range slices.Sorted(maps.Keys(of)) {
		all = append(all, of[name].proto(keyspace, stats))
	}
	return all, err
}

// errMode is a group of a mode that PD has no code for: it would end.
var errMode = errors.New("only groups in RU mode are implemented")

// Add saves a group, in place of one of its name.
func (g *Groups) Add(p *rmpb.ResourceGroup) error {
	keyspace := KeyspaceOf(p.GetKeyspaceId())
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.need(keyspace); err != nil {
		return err
	}
	switch {
	case p.GetName() == "" || len(p.GetName()) > maxName:
		return refused("ErrInvalidGroup", "invalid group settings, please check the group name")
	case p.GetPriority() > maxPriority:
		return refused("ErrInvalidGroup", "invalid group settings, please check the group priority")
	case p.GetMode() != rmpb.GroupMode_RUMode:
		return errMode
	}
	return g.add(keyspace, newGroup(p))
}

// Modify gives a group other settings, and tokens besides those that it has.
func (g *Groups) Modify(p *rmpb.ResourceGroup) error {
	keyspace, name := KeyspaceOf(p.GetKeyspaceId()), p.GetName()
	g.mu.Lock()
	defer g.mu.Unlock()
	all, err := g.keyspaceOf(keyspace, name)
	if err != nil {
		return err
	}
	of := all[name]
	switch {
	case name == "":
		return refused("ErrInvalidGroup", "invalid group settings, please check the group name")
	case of == nil:
		return unknownGroup(name)
	case p.GetMode() != rmpb.GroupMode_RUMode:
		return errors.New("only support reconfigure in same mode, maybe you should delete and create a new one")
	case p.GetPriority() > maxPriority:
		return errors.New("invalid resource group priority, the value should be in [0,16]")
	case p.GetRUSettings() == nil:
		return errors.New("invalid resource group settings, RU mode should set RU settings")
	}
	was := *of
	of.change(p)
	settings, err := of.proto(keyspace, true).Marshal()
	if err == nil {
		path, _ := paths(keyspace, name)
		err = g.kv.Put(path, settings)
	}
	if err != nil {
		*of = was
	}
	return err
}

// Delete ends a group.
func (g *Groups) Delete(keyspace uint32, name string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.all[keyspace] == nil:
		return refused("ErrKeyspaceNotExists", "the keyspace does not exist with id %d", keyspace)
	case name == DefaultGroup:
		return refused("ErrDeleteReservedGroup", "cannot delete reserved group")
	case g.all[keyspace][name] == nil:
		return unknownGroup(name)
	}
	settings, states := paths(keyspace, name)
	_, _, err := g.kv.Apply(etcd.Write{Key: []byte(settings), Delete: true}, etcd.Write{Key: []byte(states), Delete: true})
	if err == nil {
		delete(g.all[keyspace], name)
	}
	return err
}

// KeyspaceOf is the keyspace that a message means.
func KeyspaceOf(v *rmpb.KeyspaceIDValue) uint32 {
	if v == nil {
		return nullKeyspace
	}
	return v.GetValue()
}
