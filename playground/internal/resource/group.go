package resource

import (
	"encoding/json"
	"time"

	rmpb "github.com/pingcap/kvproto/pkg/resource_manager"
)

// group is a resource group of a keyspace.
type group struct {
	name       string
	priority   uint32
	runaway    *rmpb.RunawaySettings
	background *rmpb.BackgroundSettings
	bucket     bucket
	used       rmpb.Consumption // since it was made
}

func newGroup(g *rmpb.ResourceGroup) *group {
	made := &group{
		name: g.GetName(), priority: g.GetPriority(), runaway: g.GetRunawaySettings(), background: g.GetBackgroundSettings(),
		bucket: newBucket(g.GetRUSettings().GetRU()),
	}
	if g.RUStats != nil {
		made.used = *g.RUStats
	}
	return made
}

// defaultGroup is the one that every keyspace has, without limits.
func defaultGroup() *group {
	return newGroup(&rmpb.ResourceGroup{
		Name: DefaultGroup, Mode: rmpb.GroupMode_RUMode, Priority: middlePriority,
		RUSettings: &rmpb.GroupRequestUnitSettings{RU: &rmpb.TokenBucket{
			Settings: &rmpb.TokenLimitSettings{FillRate: unlimitedRate, BurstLimit: burstUnlimited},
		}},
	})
}

// proto is the group as clients and etcd have it.
func (g *group) proto(keyspace uint32, used bool) *rmpb.ResourceGroup {
	p := &rmpb.ResourceGroup{
		Name: g.name, Mode: rmpb.GroupMode_RUMode, Priority: g.priority,
		RUSettings:      &rmpb.GroupRequestUnitSettings{},
		RunawaySettings: g.runaway, BackgroundSettings: g.background,
		KeyspaceId: keyspaceValue(keyspace),
	}
	if g.bucket.settings != nil {
		settings := *g.bucket.settings
		p.RUSettings.RU = &rmpb.TokenBucket{Settings: &settings, Tokens: g.bucket.tokens}
	}
	if used {
		stats := g.used
		p.RUStats = &stats
	}
	return p
}

// change takes other settings over; its tokens are added to those that are there (PD:
// pkg/mcs/resourcemanager/server/resource_group.go, PatchSettings).
func (g *group) change(to *rmpb.ResourceGroup) {
	g.priority, g.runaway, g.background = to.GetPriority(), to.GetRunawaySettings(), to.GetBackgroundSettings()
	g.bucket.set(to.GetRUSettings().GetRU().GetSettings())
	g.bucket.tokens += to.GetRUSettings().GetRU().GetTokens()
}

// use adds to what was used.
func (g *group) use(c *rmpb.Consumption) {
	if c == nil {
		return
	}
	u := &g.used
	u.RRU += c.RRU
	u.WRU += c.WRU
	u.ReadBytes += c.ReadBytes
	u.WriteBytes += c.WriteBytes
	u.TotalCpuTimeMs += c.TotalCpuTimeMs
	u.SqlLayerCpuTimeMs += c.SqlLayerCpuTimeMs
	u.KvReadRpcCount += c.KvReadRpcCount
	u.KvWriteRpcCount += c.KvWriteRpcCount
	u.ReadCrossAzTrafficBytes += c.ReadCrossAzTrafficBytes
	u.WriteCrossAzTrafficBytes += c.WriteCrossAzTrafficBytes
	u.TikvRUV2 += c.TikvRUV2
	u.TidbRUV2 += c.TidbRUV2
	u.TiflashRUV2 += c.TiflashRUV2
}

// state is what is saved of a group now and then, under PD's names.
type state struct {
	RU struct {
		Tokens  float64    `json:"tokens,omitempty"`
		Last    *time.Time `json:"last_update,omitempty"`
		Started bool       `json:"initialized"`
	} `json:"r_u"`
	Used *rmpb.Consumption `json:"ru_consumption,omitempty"`
}

func (g *group) state() ([]byte, error) {
	used := g.used
	s := state{Used: &used}
	s.RU.Tokens, s.RU.Started = g.bucket.tokens, g.bucket.started
	if last := g.bucket.last; !last.IsZero() {
		s.RU.Last = &last
	}
	return json.Marshal(s)
}

func (g *group) setState(data []byte) error {
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	g.bucket.tokens, g.bucket.started = s.RU.Tokens, s.RU.Started
	if s.RU.Last != nil {
		g.bucket.last = *s.RU.Last
	}
	if s.Used != nil {
		g.used = *s.Used
	}
	return nil
}

func keyspaceValue(id uint32) *rmpb.KeyspaceIDValue {
	return &rmpb.KeyspaceIDValue{Keyspace: &rmpb.KeyspaceIDValue_Value{Value: id}}
}
