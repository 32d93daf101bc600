package copr

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/mpp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// mppVersion is the newest that TiFlash knows, the least being 0 (Flash/Mpp/MppVersion.h).
const mppVersion = 3

// maxGathers is how many gathers a store remembers (Flash/Mpp/MPPTaskManager.h,
// ABORTED_MPPGATHER_CACHE_SIZE).
const maxGathers = 1000

// findTask is how long a connection waits for its sender (Flash/FlashService.cpp,
// EstablishMPPConnection).
const findTask = 10 * time.Second

// runningTimeout is what a task may take longer than its writing (Flash/Mpp/MPPTask.cpp,
// prepare).
const runningTimeout = 30 * time.Second

// MPP is the manager of a TiFlash store's tasks (Flash/Mpp/MPPTaskManager.cpp). A plan's
// exchange is not known to it: each receiver that connects is sent all that the task
// computed.
type MPP struct {
	mu      sync.Mutex
	gathers map[gatherID]*gather
	order   []gatherID    // the oldest first
	changed chan struct{} // closed at the next change
}

// gatherID names a gather of a query: MPPGatherId.
type gatherID struct{ gather, queryTS, localQuery, server, start uint64 }

type gather struct {
	tasks   map[int64]*mppTask
	aborted string // why; empty: it was not
	stop    []context.CancelFunc
}

type mppTask struct {
	done      chan struct{}
	data      []byte
	err       error // with done
	receivers map[int64]bool
}

// NewMPP returns a manager without tasks.
func NewMPP() *MPP {
	return &MPP{gathers: make(map[gatherID]*gather), changed: make(chan struct{})}
}

func gatherOf(m *mpp.TaskMeta) gatherID {
	return gatherID{m.GetGatherId(), m.GetQueryTs(), m.GetLocalQueryId(), m.GetServerId(), m.GetStartTs()}
}

func (id gatherID) String() string {
	return fmt.Sprintf("gather_id:%d, query_ts:%d, local_query_id:%d, server_id:%d, start_ts:%d",
		id.gather, id.queryTS, id.localQuery, id.server, id.start)
}

// tell wakes all that wait. The caller holds the lock.
func (m *MPP) tell() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// get returns a gather, which is made if there is none. The caller holds the lock.
func (m *MPP) get(id gatherID) *gather {
	g := m.gathers[id]
	if g == nil {
		g = &gather{tasks: make(map[int64]*mppTask)}
		m.gathers[id] = g
		if m.order = append(m.order, id); len(m.order) > maxGathers {
			for _, stop := range m.gathers[m.order[0]].stop {
				stop()
			}
			delete(m.gathers, m.order[0])
			m.order = m.order[1:]
		}
	}
	return g
}

// Check is the status of a call by a version that TiFlash does not know.
func Check(code codes.Code, what string, m *mpp.TaskMeta) error {
	if v := m.GetMppVersion(); v < 0 || v > mppVersion {
		return status.Errorf(code, "Failed to %s, reason=`%s`", what, badVersion(v))
	}
	return nil
}

func badVersion(v int64) string {
	old := "TiFlash"
	if v < 0 {
		old = "TiDB/planner"
	}
	return fmt.Sprintf("Invalid mpp version %d, TiFlash expects version: min 0, max %d, should upgrade %s", v, mppVersion, old)
}

// Alive answers IsAlive.
func Alive() *mpp.IsAliveResponse {
	return &mpp.IsAliveResponse{Available: true, MppVersion: mppVersion}
}

// Dispatch registers a task and lets start run it in the background. compute is given the
// time that the task has, and ends when the task is cancelled.
func (m *MPP) Dispatch(ctx context.Context, q *mpp.DispatchTaskRequest, start func(func()) bool, compute func(context.Context) ([]byte, error)) error {
	id, task := gatherOf(q.Meta), q.Meta.GetTaskId()
	t := &mppTask{done: make(chan struct{}), receivers: make(map[int64]bool)}
	refused := func(reason string) error {
		return Words(fmt.Sprintf("Failed to register MPP Task MPP<%v,task_id:%d>, reason: %s", id, task, reason))
	}
	var cancel context.CancelFunc
	if q.Timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(min(q.Timeout, 1<<31))*time.Second+runningTimeout)
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.get(id)
	switch {
	case g.aborted != "":
		cancel()
		return refused("gather is being aborted, error message = " + g.aborted)
	case g.tasks[task] != nil:
		cancel()
		return refused("task is already registered")
	}
	if !start(func() {
		defer cancel()
		defer close(t.done)
		t.data, t.err = compute(ctx)
		if why := m.abortedBy(g); t.err != nil && why != "" {
			t.err = Words(why) // and not that its context ended
		}
	}) {
		cancel()
		return Words("server is shutting down")
	}
	g.tasks[task] = t
	g.stop = append(g.stop, cancel)
	m.tell()
	return nil
}

// Words is an error in the words of another.
type Words string

// Error returns the words.
func (w Words) Error() string { return string(w) }

// Cancel ends a gather's tasks and connections (abortMPPGather); one that is not known
// will find itself aborted.
func (m *MPP) Cancel(q *mpp.CancelTaskRequest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.get(gatherOf(q.Meta))
	if g.aborted != "" {
		return
	}
	g.aborted = "Receive cancel request from TiDB"
	for _, stop := range g.stop {
		stop()
	}
	m.tell()
}

// abortedBy is why a gather was aborted, empty if it was not.
func (m *MPP) abortedBy(g *gather) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return g.aborted
}

// Establish connects a receiver to a task: an error is the call's, others are packets.
func (m *MPP) Establish(ctx context.Context, q *mpp.EstablishMPPConnectionRequest) iter.Seq2[*mpp.MPPDataPacket, error] {
	return func(yield func(*mpp.MPPDataPacket, error) bool) {
		if err := checkBoth(q); err != nil {
			yield(nil, err)
			return
		}
		yield(m.receive(ctx, q))
	}
}

func checkBoth(q *mpp.EstablishMPPConnectionRequest) error {
	var words string
	for _, side := range []struct {
		name string
		v    int64
	}{{"sender", q.GetSenderMeta().GetMppVersion()}, {"receiver", q.GetReceiverMeta().GetMppVersion()}} {
		if side.v < 0 || side.v > mppVersion {
			words += fmt.Sprintf("%s failed: %s; ", side.name, badVersion(side.v))
		}
	}
	if words == "" {
		return nil
	}
	return status.Errorf(codes.Internal, "Failed to establish MPP connection, reason=`%s`", words)
}

// receive waits for the task (findTunnelWithTimeout), and for what it computed.
func (m *MPP) receive(ctx context.Context, q *mpp.EstablishMPPConnectionRequest) (*mpp.MPPDataPacket, error) {
	from, to := q.GetSenderMeta(), q.GetReceiverMeta().GetTaskId()
	tunnel := fmt.Sprintf("tunnel%d+%d", from.GetTaskId(), to)
	timer := time.NewTimer(findTask)
	defer timer.Stop()
	var t *mppTask
	for {
		m.mu.Lock()
		changed, aborted := m.changed, ""
		if g := m.gathers[gatherOf(from)]; g != nil {
			if aborted = g.aborted; t == nil && aborted == "" {
				if t = g.tasks[from.GetTaskId()]; t != nil && t.receivers[to] {
					m.mu.Unlock() // connectSync: an exception that nobody catches
					return nil, status.Error(codes.Unknown, "Unexpected error in RPC handling")
				} else if t != nil {
					t.receivers[to] = true
				}
			}
		}
		m.mu.Unlock()
		var done <-chan struct{}
		expired := timer.C
		switch {
		case aborted != "" && t == nil:
			return packetError("%s: Task [%d,%d] has been aborted, error message: %s", tunnel, from.GetStartTs(), from.GetTaskId(), aborted)
		case aborted != "":
			return packetError("%s", aborted)
		case t != nil:
			done, expired = t.done, nil
		}
		select {
		case <-done:
			return t.packet(to)
		case <-changed:
		case <-expired:
			return packetError("%s: Can't find task [%d,%d] within %ds.", tunnel, from.GetStartTs(), from.GetTaskId(), int(findTask.Seconds()))
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
}

// packet is what a task computed: TiDB, which is task -1, gets it as data, others as a
// chunk (kvproto, mpp.proto).
func (t *mppTask) packet(receiver int64) (*mpp.MPPDataPacket, error) {
	switch {
	case t.err != nil:
		return packetError("%v", t.err)
	case receiver == -1:
		return &mpp.MPPDataPacket{Data: t.data}, nil
	}
	return &mpp.MPPDataPacket{Chunks: [][]byte{t.data}}, nil
}

func packetError(format string, args ...any) (*mpp.MPPDataPacket, error) {
	return &mpp.MPPDataPacket{Error: &mpp.Error{MppVersion: mppVersion, Msg: fmt.Sprintf(format, args...)}}, nil
}
