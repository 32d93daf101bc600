package storage

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestSecondOpenIsRefusedAtOnce(t *testing.T) {
	path := t.TempDir()
	e, err := OpenDir(path, false)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := OpenDir(path, false); !errors.Is(err, ErrInUse) {
		t.Fatal(err)
	}
	if d := time.Since(start); d > time.Minute { // it does not wait for the first to end
		t.Fatalf("refused after %v", d)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if e, err = OpenDir(path, false); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestUnusableDirectories(t *testing.T) {
	path := t.TempDir()
	file := filepath.Join(path, "file")
	if err := os.WriteFile(file, []byte("no directory"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDir(file, false); err == nil {
		t.Fatal("a file was opened as a directory")
	}
	if err := os.WriteFile(filepath.Join(path, dirFile), make([]byte, 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDir(path, false); err == nil {
		t.Fatal("a file of zeros was opened")
	}
}

// A process killed while it made the file leaves a part of it under another name.
func TestUnfinishedFileIsForgotten(t *testing.T) {
	path := t.TempDir()
	left := filepath.Join(path, dirNew+"123")
	if err := os.WriteFile(left, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := OpenDir(path, true)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Fatal("still there:", err)
	}
}

// The file may not outgrow the mapping: a batch that would make it do so is refused
// whole, and the engine goes on.
func TestFullFileRefusesTheBatch(t *testing.T) {
	path := t.TempDir()
	first, err := OpenDir(path, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := openBolt(filepath.Join(path, dirFile), false, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var e Engine = &dir{db: db}
	defer e.Close()
	big, small := new(Batch), new(Batch)
	small.Put(Default, []byte("small"), []byte("v"))
	big.Put(Default, []byte("a"), []byte("v"))
	big.Put(Default, []byte("big"), make([]byte, 40<<20))
	if err := e.Apply(big); err == nil {
		t.Fatal("applied")
	}
	if err := e.Apply(small); err != nil {
		t.Fatal(err)
	}
	s := e.Snapshot()
	defer s.Close()
	if _, ok := s.Get(Default, []byte("a")); ok {
		t.Fatal("a part of the refused batch shows")
	}
	if _, ok := s.Get(Default, []byte("small")); !ok {
		t.Fatal("a later batch is lost")
	}
}
