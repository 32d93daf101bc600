package playground

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/meta_storagepb"
	rmpb "github.com/pingcap/kvproto/pkg/resource_manager"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func (c *testCluster) resources(member int) rmpb.ResourceManagerClient {
	return rmpb.NewResourceManagerClient(c.conn(c.PD()[member]))
}

func ruGroup(name string, rate uint64, burst int64) *rmpb.ResourceGroup {
	return &rmpb.ResourceGroup{Name: name, Mode: rmpb.GroupMode_RUMode, Priority: 8, RUSettings: &rmpb.GroupRequestUnitSettings{
		RU: &rmpb.TokenBucket{Settings: &rmpb.TokenLimitSettings{FillRate: rate, BurstLimit: burst}}}}
}

func inKeyspace(id uint32) *rmpb.KeyspaceIDValue {
	return &rmpb.KeyspaceIDValue{Keyspace: &rmpb.KeyspaceIDValue_Value{Value: id}}
}

func (c *testCluster) groupNames(keyspace *rmpb.KeyspaceIDValue) string {
	c.t.Helper()
	r, err := c.resources(0).ListResourceGroups(c.t.Context(), &rmpb.ListResourceGroupsRequest{KeyspaceId: keyspace})
	if err != nil {
		c.t.Fatal(err)
	}
	var names []string
	for _, g := range r.Groups {
		names = append(names, g.Name)
	}
	return strings.Join(names, " ")
}

// Groups come, change and go for each keyspace, refused in PD's words; a keyspace has its
// default group once it is asked for (PD: pkg/mcs/resourcemanager/server/manager.go,
// keyspace_manager.go).
func TestResourceGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithMembers(3), WithAPIVersion(APIV2), WithKeyspaces("ks"), WithResourceGroup("rg", 1000))
		rm, ctx := c.resources(0), t.Context()
		put := func(g *rmpb.ResourceGroup) *rmpb.PutResourceGroupRequest {
			return &rmpb.PutResourceGroupRequest{Group: g}
		}
		of := func(keyspace uint32, g *rmpb.ResourceGroup) *rmpb.ResourceGroup {
			g.KeyspaceId = inKeyspace(keyspace)
			return g
		}
		if got := c.groupNames(nil); got != "default rg" {
			t.Fatal(got)
		}
		unlimited, err := rm.GetResourceGroup(ctx, &rmpb.GetResourceGroupRequest{ResourceGroupName: "default", WithRuStats: true})
		if s := unlimited.GetGroup().GetRUSettings().GetRU().GetSettings(); err != nil || s.GetFillRate() != 1<<31-1 || s.GetBurstLimit() != -1 ||
			unlimited.Group.Priority != 8 || unlimited.Group.RUStats == nil || unlimited.Group.KeyspaceId.GetValue() != 0xffffffff {
			t.Fatal(unlimited, err)
		}
		raw := ruGroup("raw", 1, 1)
		raw.Mode = rmpb.GroupMode_RawMode
		urgent := ruGroup("rg", 1, 1)
		urgent.Priority = 17
		for i, step := range []struct {
			do   func() error
			want string
		}{
			{func() error { _, err := rm.AddResourceGroup(ctx, put(ruGroup("rg2", 5, 5))); return err }, ""},
			{func() error { _, err := rm.AddResourceGroup(ctx, put(ruGroup("rg2", 6, 6))); return err }, ""},
			{func() error {
				_, err := rm.AddResourceGroup(ctx, put(ruGroup(strings.Repeat("x", 33), 6, 6)))
				return err
			}, "[PD:resourcemanager:ErrInvalidGroup]invalid group settings, please check the group name"},
			{func() error { _, err := rm.AddResourceGroup(ctx, put(urgent)); return err }, "please check the group priority"},
			{func() error { _, err := rm.AddResourceGroup(ctx, put(raw)); return err }, "only groups in RU mode"},
			{func() error { _, err := rm.AddResourceGroup(ctx, put(nil)); return err }, "please check the group name"},
			{func() error { _, err := rm.ModifyResourceGroup(ctx, put(ruGroup("rg2", 7, 7))); return err }, ""},
			{func() error { _, err := rm.ModifyResourceGroup(ctx, put(ruGroup("rg3", 7, 7))); return err },
				"[PD:resourcemanager:ErrGroupNotExists]the rg3 resource group does not exist"},
			{func() error { _, err := rm.ModifyResourceGroup(ctx, put(urgent)); return err }, "invalid resource group priority"},
			{func() error { _, err := rm.ModifyResourceGroup(ctx, put(of(1, ruGroup("a", 7, 7)))); return err },
				"[PD:resourcemanager:ErrKeyspaceNotExists]the keyspace does not exist with id 1"},
			{func() error { _, err := rm.AddResourceGroup(ctx, put(of(1, ruGroup("a", 7, 7)))); return err }, ""},
			{func() error { _, err := rm.ModifyResourceGroup(ctx, put(of(1, ruGroup("a", 8, 8)))); return err }, ""},
			{func() error {
				_, err := rm.DeleteResourceGroup(ctx, &rmpb.DeleteResourceGroupRequest{ResourceGroupName: "default"})
				return err
			}, "[PD:resourcemanager:ErrDeleteReservedGroup]cannot delete reserved group"},
			{func() error {
				_, err := rm.DeleteResourceGroup(ctx, &rmpb.DeleteResourceGroupRequest{ResourceGroupName: "rg"})
				return err
			}, ""},
			{func() error {
				_, err := rm.DeleteResourceGroup(ctx, &rmpb.DeleteResourceGroupRequest{ResourceGroupName: "rg"})
				return err
			}, "the rg resource group does not exist"},
			{func() error {
				_, err := rm.GetResourceGroup(ctx, &rmpb.GetResourceGroupRequest{ResourceGroupName: "rg"})
				return err
			}, "the rg resource group does not exist"},
			{func() error {
				_, err := rm.GetResourceGroup(ctx, &rmpb.GetResourceGroupRequest{ResourceGroupName: "a", KeyspaceId: inKeyspace(5)})
				return err
			}, "the keyspace does not exist with id 5"},
		} {
			err := step.do()
			if step.want == "" && err == nil {
				continue
			}
			if status.Code(err) != codes.Unknown || step.want == "" || !strings.Contains(err.Error(), step.want) {
				t.Errorf("%d: %v, want %q", i, err, step.want)
			}
		}
		if a, b, d := c.groupNames(nil), c.groupNames(inKeyspace(1)), c.groupNames(inKeyspace(2)); a != "default rg2" || b != "a default" || d != "default" {
			t.Errorf("%q, %q, %q", a, b, d)
		}
		if _, err := c.resources(1).ListResourceGroups(ctx, new(rmpb.ListResourceGroupsRequest)); status.Code(err) != codes.Unavailable {
			t.Error(err)
		}
	})
}

// Tokens come at the fill rate of the group, by the cluster's clock, with the time over
// which to use them; what was used is counted.
func TestAcquireTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithResourceGroup("rg", 1000), WithMembers(3))
		s, err := c.resources(0).AcquireTokenBuckets(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		acquire := func(q *rmpb.TokenBucketRequest) (*rmpb.TokenBucketsResponse, error) {
			if err := s.Send(&rmpb.TokenBucketsRequest{Requests: []*rmpb.TokenBucketRequest{q}, TargetRequestPeriodMs: 5000, ClientUniqueId: 7}); err != nil {
				t.Fatal(err)
			}
			return s.Recv()
		}
		ask := func(group string, units float64) *rmpb.TokenBucketRequest {
			return &rmpb.TokenBucketRequest{ResourceGroupName: group, ConsumptionSinceLastRequest: &rmpb.Consumption{RRU: units},
				Request: &rmpb.TokenBucketRequest_RuItems{RuItems: &rmpb.TokenBucketRequest_RequestRU{
					RequestRU: []*rmpb.RequestUnitItem{{Value: units}}}}}
		}
		for i, step := range []struct {
			after          time.Duration
			group          string
			units, granted float64
			trickle        int64
		}{
			{0, "default", 1e9, 1e9, 0}, {0, "rg", 100000, 100000, 0}, {0, "rg", 9000, 5000, 5000}, {0, "rg", 9000, 2500, 5000},
			{7500 * time.Millisecond, "rg", 9000, 5000, 5000},
			{time.Hour, "rg", 600, 600, 0}, // a thousand are there, no more
			{0, "rg", 600, 600, 600},       // four hundred at once
		} {
			c.Advance(step.after)
			r, err := acquire(ask(step.group, step.units))
			if err != nil || len(r.Responses) != 1 || r.Responses[0].ResourceGroupName != step.group || len(r.Responses[0].GrantedRUTokens) != 1 {
				t.Fatal(i, r, err)
			}
			if g := r.Responses[0].GrantedRUTokens[0]; g.GrantedTokens.Tokens != step.granted || g.TrickleTimeMs != step.trickle {
				t.Errorf("%d: %v", i, g)
			}
		}
		if r, err := acquire(ask("none", 5)); err != nil || len(r.Responses) != 0 {
			t.Error(r, err)
		}
		behind := ask("rg", 5)
		behind.IsBackground = true
		if r, err := acquire(behind); err != nil || len(r.Responses) != 0 {
			t.Error(r, err)
		}
		g, err := c.resources(0).GetResourceGroup(t.Context(), &rmpb.GetResourceGroupRequest{ResourceGroupName: "rg", WithRuStats: true})
		if err != nil || g.Group.RUStats.RRU != 100000+3*9000+2*600+5 {
			t.Error(g, err)
		}
		if err := c.TransferPD(1); err != nil {
			t.Fatal(err)
		}
		if _, err := acquire(ask("rg", 5)); status.Code(err) != codes.Unavailable {
			t.Error(err)
		}
	})
}

// Clients follow the groups and the controller's configuration in the meta storage (PD's
// client: resource_group/controller/global_controller.go).
func TestResourceGroupsInMetaStorage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithAPIVersion(APIV2), WithKeyspaces("ks"))
		config, err := c.metaStorage(0).Get(t.Context(), &meta_storagepb.GetRequest{Key: []byte("resource_group/controller")})
		if err != nil || len(config.Kvs) != 1 {
			t.Fatal(config, err)
		}
		var fields struct {
			Wait string             `json:"ltb-max-wait-duration"`
			Unit map[string]float64 `json:"request-unit"`
		}
		if err := json.Unmarshal(config.Kvs[0].Value, &fields); err != nil || fields.Wait != "30s" || fields.Unit["read-cost-per-byte"] != 1./(64*1024) ||
			fields.Unit["read-cpu-ms-cost"] != 1./3 || fields.Unit["write-cost-per-byte"] != 1./1024 {
			t.Fatal(fields, err)
		}
		watch := func(prefix, end string) meta_storagepb.MetaStorage_WatchClient {
			w, err := c.metaStorage(0).Watch(t.Context(), &meta_storagepb.WatchRequest{Key: []byte(prefix), RangeEnd: []byte(end), PrevKv: true})
			if err != nil {
				t.Fatal(err)
			}
			return w
		}
		all, own := watch("resource_group/settings", "resource_group/settingt"), watch("resource_group/keyspace/settings/1", "resource_group/keyspace/settings/2")
		synctest.Wait()
		g := ruGroup("rg", 5, 5)
		if _, err := c.resources(0).AddResourceGroup(t.Context(), &rmpb.PutResourceGroupRequest{Group: g}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.resources(0).DeleteResourceGroup(t.Context(), &rmpb.DeleteResourceGroupRequest{ResourceGroupName: "rg"}); err != nil {
			t.Fatal(err)
		}
		var events []*meta_storagepb.Event
		for len(events) < 2 {
			r, err := all.Recv()
			if err != nil {
				t.Fatal(err)
			}
			events = append(events, r.Events...)
		}
		var got rmpb.ResourceGroup
		if err := got.Unmarshal(events[0].Kv.Value); err != nil || got.Name != "rg" || got.RUSettings.RU.Settings.FillRate != 5 ||
			events[1].Type != meta_storagepb.Event_DELETE || got.Unmarshal(events[1].PrevKv.Value) != nil || got.Name != "rg" {
			t.Fatal(events, err)
		}
		g.KeyspaceId = inKeyspace(1)
		if _, err := c.resources(0).AddResourceGroup(t.Context(), &rmpb.PutResourceGroupRequest{Group: g}); err != nil {
			t.Fatal(err)
		}
		if r, err := own.Recv(); err != nil || string(r.Events[0].Kv.Key) != "resource_group/keyspace/settings/1/default" {
			t.Fatal(r, err)
		}
	})
}

// Groups, and their tokens of the last minute, survive in a directory.
func TestResourceGroupsInADirectory(t *testing.T) {
	dir := t.TempDir()
	c := start(t, WithDir(dir, false), WithResourceGroup("rg", 1000))
	s, err := c.resources(0).AcquireTokenBuckets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&rmpb.TokenBucketsRequest{ClientUniqueId: 1, Requests: []*rmpb.TokenBucketRequest{{
		ResourceGroupName: "rg", ConsumptionSinceLastRequest: &rmpb.Consumption{WRU: 5},
		Request: &rmpb.TokenBucketRequest_RuItems{RuItems: &rmpb.TokenBucketRequest_RequestRU{RequestRU: []*rmpb.RequestUnitItem{{Value: 99000}}}}}}}); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Recv(); err != nil || r.Responses[0].GrantedRUTokens[0].GrantedTokens.Tokens != 99000 {
		t.Fatal(r, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), WithDir(dir, false), WithResourceGroup("other", 1)); err == nil || !strings.Contains(err.Error(), "no resource group") {
		t.Fatal(err)
	}
	c = start(t, WithDir(dir, false), WithResourceGroup("rg", 5))
	g, err := c.resources(0).GetResourceGroup(t.Context(), &rmpb.GetResourceGroupRequest{ResourceGroupName: "rg", WithRuStats: true})
	if err != nil || g.Group.RUSettings.RU.Settings.FillRate != 1000 || g.Group.RUSettings.RU.Tokens != 1000 || g.Group.RUStats.WRU != 5 {
		t.Fatal(g, err)
	}
	for _, o := range []Option{WithResourceGroup("", 1), WithResourceGroup(strings.Repeat("x", 33), 1), WithResourceGroup("a", 0), WithResourceGroup("a", 1<<40)} {
		if _, err := Start(t.Context(), o); err == nil {
			t.Error("taken")
		}
	}
}
