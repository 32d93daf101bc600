package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"github.com/tikv-go/tikv/internal/keys"
)

// dir is the engine in a directory: one bbolt file, a bucket for each family, a bbolt
// transaction for each batch.
//
// A bbolt read transaction blocks the writer that has to map the file anew because it
// outgrew the mapping, and a waiting writer blocks new readers: a goroutine that holds
// one snapshot and takes another, or applies a batch, would wait for itself. So the
// whole address space that the file may ever need is mapped at the start (dirLimit;
// mapping costs nothing until pages are touched) and the file may not outgrow it.
type dir struct {
	db *bbolt.DB

	// order is held by a batch until its watchers have heard of it, and while there are
	// watchers by who takes a snapshot: it shows nothing that they have not heard of.
	order    sync.Mutex
	watched  atomic.Bool
	watchers watchers
}

var _ Engine = (*dir)(nil)

const (
	dirFile = "data.bolt"
	dirNew  = "data.bolt.new-" // + a random number: a file being initialised
	// keyPrefix stands before every key, because bbolt has no empty key; TiKV's own
	// engine does the same (components/keys/src/lib.rs, DATA_PREFIX_KEY).
	keyPrefix = 'z'
)

// ErrInUse is a directory that another process, or another engine of this one, has open.
var ErrInUse = errors.New("storage: the directory is in use by another process")

// dirLimit is how large the file may become: 64 GiB. Windows gives a file the size of
// its mapping at once, and 32-bit systems have no address space to spare: 1 GiB.
func dirLimit() int {
	if runtime.GOOS == "windows" || strconv.IntSize == 32 {
		return 1 << 30
	}
	return 1 << (strconv.IntSize - 28)
}

// OpenDir opens the engine in the directory path, which is made if need be. Without
// fsync an acknowledged batch survives a kill of the process; with it also a loss of
// power. At most one engine has a directory open; another attempt is ErrInUse at once.
func OpenDir(path string, fsync bool) (Engine, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, fmt.Errorf("storage: %w", err)
	}
	file := filepath.Join(path, dirFile)
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		if err := createDirFile(path, file, fsync); err != nil {
			return nil, err
		}
	}
	db, err := openBolt(file, fsync, dirLimit())
	if err != nil {
		return nil, err
	}
	removeUnfinished(path)
	return &dir{db: db}, nil
}

// createDirFile makes the file under another name and links it to its own when it is
// complete: a process killed in between leaves no half of a file behind, and of two
// that do this at once, one's file stays.
func createDirFile(path, file string, fsync bool) error {
	f, err := os.CreateTemp(path, dirNew+"*")
	if err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	unfinished := f.Name()
	defer func() { _ = os.Remove(unfinished) }()
	if err := f.Close(); err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	db, err := openBolt(unfinished, fsync, 0)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for cf := range numCF {
			if _, err := tx.CreateBucketIfNotExists([]byte(cf.String())); err != nil {
				return err
			}
		}
		return nil
	})
	if err = errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("storage: create %s: %w", file, err)
	}
	if err := os.Link(unfinished, file); err != nil && !errors.Is(err, fs.ErrExist) {
		if err := os.Rename(unfinished, file); err != nil { // a file system without links
			return fmt.Errorf("storage: %w", err)
		}
	}
	if fsync {
		return syncDir(path)
	}
	return nil
}

func openBolt(file string, fsync bool, limit int) (*bbolt.DB, error) {
	db, err := bbolt.Open(file, 0o644, &bbolt.Options{
		Timeout:         time.Nanosecond, // one try: whoever has the lock keeps it
		FreelistType:    bbolt.FreelistMapType,
		NoSync:          !fsync,
		NoGrowSync:      !fsync,
		NoFreelistSync:  !fsync,
		NoStatistics:    true,
		InitialMmapSize: limit,
		MaxSize:         limit,
	})
	//lint:ignore SA1019 bbolt itself is the one package of its module that we import
	if errors.Is(err, bbolt.ErrTimeout) {
		return nil, fmt.Errorf("%w: %s", ErrInUse, file)
	}
	if err != nil {
		return nil, fmt.Errorf("storage: open %s: %w", file, err)
	}
	return db, nil
}

// removeUnfinished removes what killed processes left of createDirFile. One that is
// alive and loses its file here finds the directory in use, which it is.
func removeUnfinished(path string) {
	left, _ := filepath.Glob(filepath.Join(path, dirNew+"*"))
	for _, name := range left {
		_ = os.Remove(name)
	}
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("storage: %w", err)
	}
	err = d.Sync()
	if runtime.GOOS == "windows" {
		err = nil // has no such call
	}
	if err = errors.Join(err, d.Close()); err != nil {
		return fmt.Errorf("storage: sync %s: %w", path, err)
	}
	return nil
}

func (d *dir) Apply(b *Batch) error {
	d.order.Lock()
	defer d.order.Unlock()
	if err := d.apply(b); err != nil {
		return err
	}
	d.watchers.tell(b, d.snapshot)
	return nil
}

func (d *dir) apply(b *Batch) error {
	err := d.db.Update(func(tx *bbolt.Tx) error {
		var buckets [numCF]*bbolt.Bucket
		for i := range b.ops {
			o := &b.ops[i]
			if buckets[o.cf] == nil {
				buckets[o.cf] = tx.Bucket([]byte(o.cf.String()))
			}
			if err := applyOp(buckets[o.cf], o); err != nil {
				return err
			}
		}
		return nil
	})
	//lint:ignore SA1019 bbolt itself is the one package of its module that we import
	if errors.Is(err, bbolt.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	if err != nil {
		return fmt.Errorf("storage: apply: %w", err)
	}
	return nil
}

func applyOp(bucket *bbolt.Bucket, o *op) error {
	switch o.kind {
	case opPut:
		return bucket.Put(dirKey(o.key), o.value)
	case opDelete:
		return bucket.Delete(dirKey(o.key))
	}
	// The keys first: a bbolt cursor skips entries when it deletes as it goes.
	var doomed [][]byte
	c := bucket.Cursor()
	r := dirRange(keys.Range{Start: o.key, End: o.value})
	for k, _ := c.Seek(r.Start); k != nil && r.Contains(k); k, _ = c.Next() {
		doomed = append(doomed, k)
	}
	for _, k := range doomed {
		if err := bucket.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

func (d *dir) Close() error {
	if err := d.db.Close(); err != nil {
		return fmt.Errorf("storage: close: %w", err)
	}
	return nil
}

func dirKey(key []byte) []byte {
	k := make([]byte, 1+len(key))
	k[0] = keyPrefix
	copy(k[1:], key)
	return k
}

// dirRange is r as bbolt's keys; all of them are below keyPrefix + 1.
func dirRange(r keys.Range) keys.Range {
	end := []byte{keyPrefix + 1}
	if len(r.End) > 0 {
		end = dirKey(r.End)
	}
	return keys.Range{Start: dirKey(r.Start), End: end}
}
