package pdserver

import (
	"context"
	"fmt"

	"github.com/pingcap/kvproto/pkg/meta_storagepb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tikv-go/tikv/playground/internal/etcd"
)

// metaStorage is PD's etcd as a service of its own (PD: pkg/mcs/metastorage/server/
// grpc_service.go), which checks no cluster id. Clients look there for the addresses of
// services beside PD, of which there are none, and watch the resource groups.
type metaStorage struct {
	meta_storagepb.UnimplementedMetaStorageServer
	m *Member
}

// serving refuses what only the leader serves (PD: errs.ErrNotLeader).
func (m *Member) serving() error {
	if !m.leads() {
		return errNotLeader()
	}
	return nil
}

func (s *metaStorage) header(revision int64) *meta_storagepb.ResponseHeader {
	return &meta_storagepb.ResponseHeader{ClusterId: s.m.pd.ClusterID, Revision: revision}
}

// refusal is the header of an answer of etcd's that is an error; its revision is not known.
func (s *metaStorage) refusal(kind meta_storagepb.ErrorType, text string) *meta_storagepb.ResponseHeader {
	return &meta_storagepb.ResponseHeader{ClusterId: s.m.pd.ClusterID, Error: &meta_storagepb.Error{Type: kind, Message: text}}
}

// pair is a pair as PD passes it on, without its revisions.
func pair(kv *etcd.KeyValue) *meta_storagepb.KeyValue {
	if kv == nil {
		return nil
	}
	return &meta_storagepb.KeyValue{Key: kv.Key, Value: kv.Value}
}

// Get reads a range of keys, as of a revision if the request names one.
func (s *metaStorage) Get(_ context.Context, req *meta_storagepb.GetRequest) (*meta_storagepb.GetResponse, error) {
	if err := s.m.serving(); err != nil {
		return nil, err
	}
	found, revision, err := s.m.pd.kv.Range(req.GetKey(), req.GetRangeEnd(), req.GetRevision())
	if err != nil {
		return &meta_storagepb.GetResponse{Header: s.refusal(meta_storagepb.ErrorType_UNKNOWN, err.Error())}, nil
	}
	resp := &meta_storagepb.GetResponse{Header: s.header(revision), Count: int64(len(found))}
	for i := range found {
		if n := req.GetLimit(); n > 0 && int64(i) == n {
			resp.More = true
			break
		}
		resp.Kvs = append(resp.Kvs, pair(&found[i]))
	}
	return resp, nil
}

// Put sets a key. Nobody can ask for a lease here, so that none is found.
func (s *metaStorage) Put(_ context.Context, req *meta_storagepb.PutRequest) (*meta_storagepb.PutResponse, error) {
	if err := s.m.serving(); err != nil {
		return nil, err
	}
	if len(req.GetKey()) > 0 && req.GetLease() != 0 {
		return &meta_storagepb.PutResponse{Header: s.refusal(meta_storagepb.ErrorType_UNKNOWN, etcd.ErrNoLease.Error())}, nil
	}
	before, revision, err := s.m.pd.kv.Apply(etcd.Write{Key: req.GetKey(), Value: req.GetValue()})
	if err != nil {
		return &meta_storagepb.PutResponse{Header: s.refusal(meta_storagepb.ErrorType_UNKNOWN, err.Error())}, nil
	}
	resp := &meta_storagepb.PutResponse{Header: s.header(revision)}
	if req.GetPrevKv() {
		resp.PrevKv = pair(before[0])
	}
	return resp, nil
}

// Delete deletes one key: like PD, it ignores the end of a range, and does not count.
func (s *metaStorage) Delete(_ context.Context, req *meta_storagepb.DeleteRequest) (*meta_storagepb.DeleteResponse, error) {
	if err := s.m.serving(); err != nil {
		return nil, err
	}
	before, revision, err := s.m.pd.kv.Apply(etcd.Write{Key: req.GetKey(), Delete: true})
	if err != nil {
		return &meta_storagepb.DeleteResponse{Header: s.refusal(meta_storagepb.ErrorType_UNKNOWN, err.Error())}, nil
	}
	resp := &meta_storagepb.DeleteResponse{Header: s.header(revision)}
	if req.GetPrevKv() && before[0] != nil {
		resp.PrevKvs = append(resp.PrevKvs, pair(before[0]))
	}
	return resp, nil
}

// Watch reports the changes of a range, until its caller or the server ends. As in PD a
// watch goes on where another member leads; only to begin one takes the leader.
func (s *metaStorage) Watch(req *meta_storagepb.WatchRequest, stream meta_storagepb.MetaStorage_WatchServer) error {
	return s.m.message(stream.Context(), "Watch", req, func() error {
		if err := s.m.serving(); err != nil {
			return err
		}
		key := req.GetKey()
		if len(key) == 0 { // etcd takes the smallest key for none (api/v3rpc/watch.go)
			key = []byte{0}
		}
		w := s.m.pd.kv.Watch(key, req.GetRangeEnd(), req.GetStartRevision())
		for {
			events, revision, wait, err := w.Next()
			if err != nil {
				return s.compacted(req.GetStartRevision(), revision, err, stream)
			}
			if len(events) > 0 {
				resp := &meta_storagepb.WatchResponse{Header: s.header(revision), Events: eventsOf(events, req.GetPrevKv())}
				if err := stream.Send(resp); err != nil {
					return err
				}
			}
			select {
			case <-wait:
			case <-stream.Context().Done():
				return nil
			case <-s.m.life(stream.Context()).Done():
				return nil
			}
		}
	})
}

// compacted ends a watch of changes that are gone, whose watcher was told the first
// revision that is not.
func (s *metaStorage) compacted(from, first int64, err error, stream meta_storagepb.MetaStorage_WatchServer) error {
	resp := &meta_storagepb.WatchResponse{CompactRevision: first}
	if from < first {
		resp.Header = s.refusal(meta_storagepb.ErrorType_DATA_COMPACTED,
			fmt.Sprintf("required watch revision: %d is smaller than current compact/min revision %d.", from, first))
	} else {
		resp.Header = s.refusal(meta_storagepb.ErrorType_UNKNOWN, fmt.Sprintf("watch channel meet other error %s.", err))
	}
	if err := stream.Send(resp); err != nil {
		return err
	}
	return status.Error(codes.Unknown, err.Error())
}

func eventsOf(events []etcd.Event, before bool) []*meta_storagepb.Event {
	var all []*meta_storagepb.Event
	for _, e := range events {
		out := &meta_storagepb.Event{Kv: &meta_storagepb.KeyValue{
			Key: e.KV.Key, Value: e.KV.Value, CreateRevision: e.KV.Created, ModRevision: e.KV.Mod, Version: e.KV.Version,
		}}
		if e.Deleted {
			out.Type = meta_storagepb.Event_DELETE
		}
		if before {
			out.PrevKv = pair(e.Prev)
		}
		all = append(all, out)
	}
	return all
}
