package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// rivalModule is what bench/rival measures.
const rivalModule = "github.com/tikv/client-go/v2"

// buildRival builds bench/rival, with src in place of the module it names if that is not
// empty. clean removes what was built.
func buildRival(ctx context.Context, src string, log io.Writer) (program string, clean func(), err error) {
	home, err := output(ctx, "", "go", "list", "-f", "{{.Dir}}", "github.com/tikv-go/tikv/bench")
	if err != nil {
		return "", nil, fmt.Errorf("the rival is built from this project's folder, run bench there: %w", err)
	}
	dir := filepath.Join(home, "rival")
	tmp, err := os.MkdirTemp("", "tikv-bench-")
	if err != nil {
		return "", nil, err
	}
	clean = func() { _ = os.RemoveAll(tmp) }
	program = filepath.Join(tmp, "rival.exe")
	args := []string{"build", "-buildvcs=false", "-o", program}
	if src != "" {
		more, err := master(ctx, dir, src, tmp)
		if err != nil {
			clean()
			return "", nil, err
		}
		args = append(args, more...)
	}
	fmt.Fprintf(log, "building %s %s\n", clientGo, src)
	if _, err := output(ctx, dir, "go", append(args, ".")...); err != nil {
		clean()
		return "", nil, err
	}
	return program, clean, nil
}

// master makes a module file beside the rival's own that takes the rival from src, and
// returns the flags to build with it.
func master(ctx context.Context, dir, src, tmp string) ([]string, error) {
	src, err := filepath.Abs(src)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(src, "go.mod")); err != nil {
		return nil, fmt.Errorf("-rival-src: no module in %s: %w", src, err)
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(tmp, name), b, 0o644); err != nil {
			return nil, err
		}
	}
	mod := filepath.Join(tmp, "go.mod")
	if _, err := output(ctx, dir, "go", "mod", "edit", "-replace", rivalModule+"="+src, mod); err != nil {
		return nil, err
	}
	version := "master"
	if commit, err := output(ctx, src, "git", "rev-parse", "--short=8", "HEAD"); err == nil {
		version = commit
	}
	return []string{"-mod=mod", "-modfile=" + mod, "-tags=master", "-ldflags=-X main.version=" + version}, nil
}

// output runs a command and returns what it prints, without the space around it.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", errors.Join(fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err), errors.New(stderr.String()))
	}
	return strings.TrimSpace(string(out)), nil
}
