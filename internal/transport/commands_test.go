package transport

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pingcap/kvproto/pkg/tikvpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
)

// notCommands are the methods of TiKV's service that Call does not know, and why.
var notCommands = map[string]string{
	"BatchCommands":          "the stream itself",
	"KvGC":                   "TiKV answers UNIMPLEMENTED",
	"KvImport":               "TiKV's handler panics",
	"CoprocessorStream":      "a stream of answers",
	"BatchCoprocessor":       "TiFlash; a stream",
	"DelegateCoprocessor":    "between stores",
	"Raft":                   "between stores",
	"BatchRaft":              "between stores",
	"Snapshot":               "between stores",
	"TabletSnapshot":         "between stores",
	"ReadIndex":              "between stores, and TiFlash's",
	"CheckLeader":            "between stores",
	"EstablishMPPConnection": "TiFlash; a stream",
	"tryAddLock":             "TiFlash, disaggregated",
	"tryMarkDelete":          "TiFlash, disaggregated",
	"EstablishDisaggTask":    "TiFlash, disaggregated",
	"CancelDisaggTask":       "TiFlash, disaggregated",
	"FetchDisaggPages":       "TiFlash, disaggregated",
	"GetDisaggConfig":        "TiFlash, disaggregated",
}

// notBatched are the members of a batched request that Call does not use, and why.
var notBatched = map[string]string{
	"GC":     "TiKV drops it without an answer",
	"Import": "TiKV's handler panics",
	"Empty":  "for tests of the stream",
}

// TestEveryMethodIsKnown walks the service that kvproto describes.
func TestEveryMethodIsKnown(t *testing.T) {
	known := map[string]reflect.Type{}
	for typ, c := range newCommands() {
		known[strings.TrimPrefix(c.method, service)] = typ
	}
	server := grpc.NewServer()
	defer server.Stop()
	tikvpb.RegisterTikvServer(server, &tikvpb.UnimplementedTikvServer{})
	methods := server.GetServiceInfo()["tikvpb.Tikv"].Methods
	client := reflect.TypeFor[tikvpb.TikvClient]()
	// grpc registers two methods by their Go names, while clients call them by those of
	// the service; both are excluded.
	title := map[string]string{"TryAddLock": "tryAddLock", "TryMarkDelete": "tryMarkDelete"}
	if len(methods) != client.NumMethod() {
		t.Fatalf("%d methods in the service, %d in the client", len(methods), client.NumMethod())
	}
	for _, m := range methods {
		name := m.Name
		if other, ok := title[name]; ok {
			name = other
		}
		typ, ok := known[name]
		switch reason := notCommands[name]; {
		case ok == (reason != ""):
			t.Errorf("%s: known %v, excluded %q", name, ok, reason)
			continue
		case !ok:
			continue
		}
		f, _ := client.MethodByName(name)
		if in := f.Type.In(1); in != typ {
			t.Errorf("%s takes %v, the table says %v", name, in, typ)
		}
		if out := reflect.TypeOf(newCommands()[typ].reply()); f.Type.Out(0) != out {
			t.Errorf("%s gives %v, the table says %v", name, f.Type.Out(0), out)
		}
		delete(known, name)
	}
	for name := range known {
		t.Errorf("no method %s", name)
	}
}

// member is a command in a message of the stream: its name and its field number.
func members(t *testing.T, wrappers []any) map[string]protowire.Number {
	t.Helper()
	out := map[string]protowire.Number{}
	for _, w := range wrappers {
		f := reflect.TypeOf(w).Elem().Field(0)
		n, err := strconv.Atoi(strings.Split(f.Tag.Get("protobuf"), ",")[1])
		if err != nil {
			t.Fatal(err)
		}
		out[f.Name] = protowire.Number(n)
	}
	return out
}

// TestEveryBatchedCommandIsKnown walks the members of a batched request: each has a
// command with its number, or a reason not to, and the answer to it the same number.
func TestEveryBatchedCommandIsKnown(t *testing.T) {
	commands := newCommands()
	requests := members(t, new(request).XXX_OneofWrappers())
	answers := members(t, new(response).XXX_OneofWrappers())
	known := 0
	for _, w := range new(request).XXX_OneofWrappers() {
		member := reflect.TypeOf(w).Elem().Field(0)
		cmd, ok := commands[member.Type]
		if reason := notBatched[member.Name]; ok == (reason != "") {
			t.Errorf("%s: known %v, excluded %q", member.Name, ok, reason)
		}
		if !ok {
			continue
		}
		known++
		if n := requests[member.Name]; cmd.number != n || answers[member.Name] != n {
			t.Errorf("%s has number %d, in answers %d, the table says %d", member.Name, n, answers[member.Name], cmd.number)
		}
	}
	all := 0
	for _, c := range commands {
		if c.number != 0 {
			all++
		}
	}
	if all != known {
		t.Errorf("%d batched commands, %d members for them", all, known)
	}
}

// TestNearlyAllCarryAContext lists the commands without one: the router cannot send
// those to a region.
func TestNearlyAllCarryAContext(t *testing.T) {
	var without []string
	for typ, c := range newCommands() {
		if !typ.Implements(reflect.TypeFor[Request]()) {
			without = append(without, strings.TrimPrefix(c.method, service))
		}
	}
	slices.Sort(without)
	if want := []string{"CancelMPPTask", "Compact", "DispatchMPPTask", "GetStoreSafeTS", "GetTiFlashSystemTable", "IsAlive", "ReportMPPTaskStatus"}; !slices.Equal(without, want) {
		t.Errorf("without a context: %v", without)
	}
}
