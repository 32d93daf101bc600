package playground

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pingcap/kvproto/pkg/cdcpb"
	"github.com/pingcap/kvproto/pkg/keyspacepb"
	"github.com/pingcap/kvproto/pkg/meta_storagepb"
	"github.com/pingcap/kvproto/pkg/pdpb"
	"github.com/pingcap/kvproto/pkg/resource_manager"
	"github.com/pingcap/kvproto/pkg/routerpb"
	"github.com/pingcap/kvproto/pkg/tikvpb"
	"github.com/pingcap/kvproto/pkg/tsopb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/playground/internal/serve"
)

// whyNot is the closed list of what the embedded cluster does not serve, by reason, as
// docs/playground-rpcs.md has it.
var whyNot = map[string][]string{
	"raft": {
		"tikvpb.Tikv/Raft",
		"tikvpb.Tikv/BatchRaft",
		"tikvpb.Tikv/Snapshot",
		"tikvpb.Tikv/TabletSnapshot",
		"tikvpb.Tikv/CheckLeader",
	},
	"import and backup": {
		"tikvpb.Tikv/KvImport",
	},
	"unimplemented in TiKV": {
		"tikvpb.Tikv/GetEstimateTiCICount",
		"tikvpb.Tikv/GetTiFlashSystemTable",
		"tikvpb.Tikv/ReadIndex",
		"tikvpb.Tikv/KvGC",
		"tikvpb.Tikv/GetLockWaitHistory",
		"tikvpb.Tikv/DelegateCoprocessor",
		"tikvpb.Tikv/ReportMPPTaskStatus",
	},
	"unimplemented in PD": {
		"keyspacepb.Keyspace/LookupKeyspace",
	},
	"lock observers": {
		"tikvpb.Tikv/RegisterLockObserver",
		"tikvpb.Tikv/CheckLockObserver",
		"tikvpb.Tikv/RemoveLockObserver",
		"tikvpb.Tikv/PhysicalScanLock",
	},
	"disaggregated TiFlash": {
		"tikvpb.Tikv/tryAddLock",
		"tikvpb.Tikv/tryMarkDelete",
		"tikvpb.Tikv/EstablishDisaggTask",
		"tikvpb.Tikv/CancelDisaggTask",
		"tikvpb.Tikv/FetchDisaggPages",
		"tikvpb.Tikv/GetDisaggConfig",
	},
	"deprecated": {
		"pdpb.PD/AskSplit",
		"pdpb.PD/ReportSplit",
		"pdpb.PD/GetDCLocationInfo",
		"pdpb.PD/SyncMaxTS",
		"pdpb.PD/GetGCSafePointV2",
		"pdpb.PD/UpdateGCSafePointV2",
		"pdpb.PD/UpdateServiceSafePointV2",
		"pdpb.PD/WatchGCSafePointV2",
		"pdpb.PD/GetAllGCSafePointV2",
	},
}

// TestEveryRPCIsListed compares docs/playground-rpcs.md with kvproto's service
// descriptors and with what the cluster answers.
func TestEveryRPCIsListed(t *testing.T) {
	listed := readRPCs(t)
	known := make(map[string]bool)
	tests := testNames(t)
	var served []string
	for _, m := range methods() {
		known[m.name] = true
		row, ok := listed[m.name]
		switch {
		case !ok:
			t.Errorf("%s is not listed", m.name)
		case row.reason != "" && !slices.Contains(whyNot[row.reason], m.name):
			t.Errorf("%s: %q is no reason that this test knows for it", m.name, row.reason)
		case row.reason == "":
			served = append(served, m.name)
			row.check(t, m.name, tests)
		}
	}
	for name := range listed {
		if !known[name] {
			t.Errorf("%s is listed, but not in kvproto's services", name)
		}
	}
	for reason, names := range whyNot {
		for _, name := range names {
			if listed[name].reason != reason {
				t.Errorf("%s: listed with reason %q, not %q", name, listed[name].reason, reason)
			}
		}
	}
	synctest.Test(t, func(t *testing.T) {
		c := start(t, WithStores(4), WithPDServices(), WithLabels(4, map[string]string{"engine": "tiflash"}))
		for _, m := range methods() {
			if answered := c.answers(t, m); answered != slices.Contains(served, m.name) {
				t.Errorf("%s: listed as served: %t, served: %t", m.name, !answered, answered)
			}
		}
	})
	t.Logf("%d RPCs: %d served, %d not", len(known), len(served), len(known)-len(served))
}

// method is an RPC of a service.
type method struct {
	name   string // service/method
	stream grpc.StreamDesc
}

// methods lists the RPCs of all services that clients call. Of etcd's, which kvproto
// does not describe, they are those that TiKV's clients use.
func methods() []method {
	g := grpc.NewServer()
	tikvpb.RegisterTikvServer(g, &tikvpb.UnimplementedTikvServer{})
	cdcpb.RegisterChangeDataServer(g, &cdcpb.UnimplementedChangeDataServer{})
	pdpb.RegisterPDServer(g, &pdpb.UnimplementedPDServer{})
	tsopb.RegisterTSOServer(g, &tsopb.UnimplementedTSOServer{})
	routerpb.RegisterRouterServer(g, &routerpb.UnimplementedRouterServer{})
	keyspacepb.RegisterKeyspaceServer(g, &keyspacepb.UnimplementedKeyspaceServer{})
	meta_storagepb.RegisterMetaStorageServer(g, &meta_storagepb.UnimplementedMetaStorageServer{})
	resource_manager.RegisterResourceManagerServer(g, &resource_manager.UnimplementedResourceManagerServer{})
	grpc_health_v1.RegisterHealthServer(g, health.NewServer())
	all := []method{{name: "etcdserverpb.Cluster/MemberList"}, {name: "etcdserverpb.KV/Range"}}
	for service, info := range g.GetServiceInfo() {
		for _, m := range info.Methods {
			all = append(all, method{service + "/" + m.Name,
				grpc.StreamDesc{ClientStreams: m.IsClientStream, ServerStreams: m.IsServerStream}})
		}
	}
	slices.SortFunc(all, func(a, b method) int { return strings.Compare(a.name, b.name) })
	return all
}

// answers sends every node a message that has at most the header that PD checks first:
// an RPC is served when one of them says anything but Unimplemented, or waits. Time is
// fake: who waits, waits for good.
func (c *testCluster) answers(t *testing.T, m method) bool {
	addrs := c.PD()
	for _, s := range c.stores {
		addrs = append(addrs, s.Server().Addr())
	}
	for _, addr := range addrs {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err := c.sendHeader(ctx, addr, m)
		cancel()
		if status.Code(err) != codes.Unimplemented {
			return true
		}
	}
	return false
}

func (c *testCluster) sendHeader(ctx context.Context, addr string, m method) error {
	s, err := c.conn(addr).NewStream(ctx, &m.stream, "/"+m.name)
	if err != nil {
		return err
	}
	var req serve.Raw
	if !strings.HasPrefix(m.name, "tikvpb.") && !strings.HasPrefix(m.name, "cdcpb.") && !strings.HasSuffix(m.name, "GlobalConfig") {
		h, err := (&pdpb.GetMembersRequest{Header: c.header()}).Marshal() // the same field in all of them
		if err != nil {
			return err
		}
		req = h
	}
	if err := s.SendMsg(&req); err != nil {
		return s.RecvMsg(new(serve.Raw)) // which has the status
	}
	if !m.stream.ClientStreams {
		if err := s.CloseSend(); err != nil {
			return err
		}
	}
	return s.RecvMsg(new(serve.Raw))
}

// rpcRow is a row of docs/playground-rpcs.md.
type rpcRow struct {
	reason  string // why it is not served
	sources string
	tests   []string
}

func (r rpcRow) check(t *testing.T, name string, known map[string]bool) {
	if r.sources == "" {
		t.Errorf("%s: served, but by no rule that was read in a source", name)
	}
	if len(r.tests) == 0 {
		t.Errorf("%s: served, but not tested", name)
	}
	for _, test := range r.tests {
		if !known[test] {
			t.Errorf("%s: there is no %s", name, test)
		}
	}
}

// readRPCs reads the tables: "| method | served or not: reason | sources | tests |"
// under a heading that names the service.
func readRPCs(t *testing.T) map[string]rpcRow {
	text, err := os.ReadFile("../docs/playground-rpcs.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := make(map[string]rpcRow)
	service := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if h, ok := strings.CutPrefix(line, "## "); ok {
			service = h
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if !strings.HasPrefix(line, "|") || len(cells) != 4 || cells[0] == "RPC" || strings.HasPrefix(cells[0], "-") {
			continue
		}
		name := service + "/" + cells[0]
		if _, again := rows[name]; again {
			t.Errorf("%s is listed twice", name)
		}
		r := rpcRow{sources: cells[2], tests: strings.Fields(strings.ReplaceAll(cells[3], ",", " "))}
		switch reason, not := strings.CutPrefix(cells[1], "not: "); {
		case not:
			r.reason = reason
		case cells[1] != "served":
			t.Errorf("%s: %q is neither \"served\" nor \"not: reason\"", name, cells[1])
		}
		rows[name] = r
	}
	return rows
}

// testNames are the tests of all modules of the repository.
func testNames(t *testing.T) map[string]bool {
	names := make(map[string]bool)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		for _, decl := range f.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Test") {
				names[fn.Name.Name] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
