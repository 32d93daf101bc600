// Package meta is what a cluster keeps of itself, in the engine's Meta family: its
// shape, regions, keyspaces, GC states, and the bounds below which ids and timestamps
// may have been given out.
package meta

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/pingcap/kvproto/pkg/keyspacepb"
	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-go/tikv/internal/keys"
	"github.com/tikv-go/tikv/playground/internal/storage"
)

// Shape is what a cluster is made with and keeps for its life.
type Shape struct {
	Format     int // of this family
	ClusterID  uint64
	APIVersion string
	Stores     int
	Members    int
}

// Format is the one that this version writes, and the only one it reads.
const Format = 1

// Store reads and writes the family. Its methods may be called concurrently; each
// write is atomic and durable as the engine's are.
type Store struct{ engine storage.Engine }

// New returns the family of engine.
func New(engine storage.Engine) *Store { return &Store{engine} }

func (s *Store) get(key string) ([]byte, bool) {
	snap := s.engine.Snapshot()
	defer snap.Close()
	return snap.Get(storage.Meta, []byte(key))
}

func (s *Store) put(key string, value []byte) error {
	var b storage.Batch
	b.Put(storage.Meta, []byte(key), value)
	return s.engine.Apply(&b)
}

// Shape returns the cluster's, and false for an engine without one.
func (s *Store) Shape() (Shape, bool, error) {
	data, ok := s.get("shape")
	if !ok {
		return Shape{}, false, nil
	}
	var shape Shape
	if err := json.Unmarshal(data, &shape); err != nil {
		return Shape{}, false, fmt.Errorf("playground: the directory's shape is damaged: %w", err)
	}
	if shape.Format != Format {
		return Shape{}, false, fmt.Errorf("playground: the directory has format %d, this version reads %d", shape.Format, Format)
	}
	return shape, true, nil
}

// Number returns a bound, 0 if it was never saved.
func (s *Store) Number(name string) uint64 {
	data, ok := s.get("number/" + name)
	if !ok || len(data) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(data)
}

// SetNumber saves a bound.
func (s *Store) SetNumber(name string, n uint64) error {
	return s.put("number/"+name, binary.BigEndian.AppendUint64(nil, n))
}

// Value returns what was saved under name.
func (s *Store) Value(name string) ([]byte, bool) { return s.get("value/" + name) }

// SetValue saves data under name.
func (s *Store) SetValue(name string, data []byte) error { return s.put("value/"+name, data) }

// Values returns what was saved under names with the prefix, by the rest of the name.
func (s *Store) Values(prefix string) map[string][]byte {
	found := make(map[string][]byte)
	start := []byte("value/" + prefix)
	snap := s.engine.Snapshot()
	defer snap.Close()
	for k, v := range snap.Scan(storage.Meta, keys.Range{Start: start, End: keys.PrefixEnd(start)}, false) {
		found[string(k[len(start):])] = v
	}
	return found
}

// Change is a set of writes applied together.
type Change struct {
	batch storage.Batch
	err   error
}

// Shape saves the cluster's shape.
func (c *Change) Shape(shape Shape) {
	data, err := json.Marshal(shape)
	if err != nil {
		c.err = err
	}
	c.batch.Put(storage.Meta, []byte("shape"), data)
}

// Region saves a region.
func (c *Change) Region(r *metapb.Region) {
	data, err := r.Marshal()
	if err != nil {
		c.err = err
	}
	c.batch.Put(storage.Meta, idKey("region/", r.GetId()), data)
}

// Value saves data under name.
func (c *Change) Value(name string, data []byte) {
	c.batch.Put(storage.Meta, []byte("value/"+name), data)
}

// DeleteValue forgets what was saved under name.
func (c *Change) DeleteValue(name string) { c.batch.Delete(storage.Meta, []byte("value/"+name)) }

// Number saves a bound.
func (c *Change) Number(name string, n uint64) {
	c.batch.Put(storage.Meta, []byte("number/"+name), binary.BigEndian.AppendUint64(nil, n))
}

// DeleteRegion forgets a region.
func (c *Change) DeleteRegion(id uint64) { c.batch.Delete(storage.Meta, idKey("region/", id)) }

// Keyspace saves a keyspace.
func (c *Change) Keyspace(k *keyspacepb.KeyspaceMeta) {
	data, err := k.Marshal()
	if err != nil {
		c.err = err
	}
	c.batch.Put(storage.Meta, idKey("keyspace/", uint64(k.GetId())), data)
}

// Apply makes the change.
func (s *Store) Apply(c *Change) error {
	if c.err != nil {
		return c.err
	}
	return s.engine.Apply(&c.batch)
}

func idKey(prefix string, id uint64) []byte { return binary.BigEndian.AppendUint64([]byte(prefix), id) }

// Regions returns the saved regions, by id.
func (s *Store) Regions() ([]*metapb.Region, error) {
	return load[metapb.Region](s, "region/")
}

// Keyspaces returns the saved keyspaces, by id.
func (s *Store) Keyspaces() ([]*keyspacepb.KeyspaceMeta, error) {
	return load[keyspacepb.KeyspaceMeta](s, "keyspace/")
}

func load[T any, P interface {
	*T
	Unmarshal([]byte) error
}](s *Store, prefix string) ([]P, error) {
	var all []P
	snap := s.engine.Snapshot()
	defer snap.Close()
	r := keys.Range{Start: []byte(prefix), End: keys.PrefixEnd([]byte(prefix))}
	for k, v := range snap.Scan(storage.Meta, r, false) {
		m := P(new(T))
		if err := m.Unmarshal(v); err != nil {
			return nil, fmt.Errorf("playground: the directory's entry %q is damaged: %w", k, err)
		}
		all = append(all, m)
	}
	return all, nil
}
