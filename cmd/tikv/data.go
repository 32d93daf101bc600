package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/tikv-go/tikv"
)

// dataCommand is what get, put, delete, scan and count have in common.
type dataCommand struct {
	target
	output
	io stdio
}

func (d *dataCommand) flags(cmd *cobra.Command) {
	d.target.flags(cmd)
	d.formatFlag(cmd)
}

// with opens the cluster, runs fn on its key space, and closes it. single bounds fn by
// --timeout too.
func (d *dataCommand) with(ctx context.Context, single bool, fn func(ctx context.Context, s space) error) (err error) {
	// Where the first interrupt does not end the program, output into a pipe that nobody
	// reads being the one such place, a second one does.
	defer context.AfterFunc(ctx, func() { signal.Reset(os.Interrupt, syscall.SIGTERM) })()
	if err := d.output.check(); err != nil {
		return err
	}
	raw, err := d.isRaw()
	if err != nil {
		return err
	}
	client, err := d.open(ctx, d.io)
	if errors.Is(err, tikv.ErrUnavailable) {
		return fmt.Errorf("%w\nPD was asked at %s: --pd, --url or TIKV_PD name another, 'tikv playground' starts a cluster", err, d.where(d.io))
	}
	if err != nil {
		return err
	}
	defer func(ctx context.Context) { err = errors.Join(err, d.close(ctx, client)) }(ctx)
	if single {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.timeout)
		defer cancel()
	}
	if err = fn(ctx, spaceOf(client, raw)); errors.Is(err, tikv.ErrRejected) && errors.Is(err, tikv.ErrUnsupported) {
		api, _ := d.version()
		err = fmt.Errorf("%w\nThe command used api %s; if the cluster has another one, say so with --api", err, api)
	}
	return err
}

// close closes the client; an interrupted command does not wait for it.
func (d *dataCommand) close(ctx context.Context, client *tikv.Client) error {
	if ctx.Err() == nil || d.io.grace == 0 {
		return client.Close()
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.io.grace)
	defer cancel()
	_, err := aside(grace, func() (struct{}, error) { return struct{}{}, client.Close() })
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

func (d *dataCommand) keys(args []string) ([][]byte, error) {
	keys := make([][]byte, len(args))
	for i, arg := range args {
		var err error
		if keys[i], err = d.format.decode(arg); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

func getCommand(io stdio) *cobra.Command {
	d := &dataCommand{io: io}
	cmd := &cobra.Command{
		Use:   "get KEY",
		Short: "Print the value of a key",
		Long:  "Print the value of a key. An absent key prints nothing on standard output and exits with 2.",
		Example: `  tikv get greeting
  tikv get picture -o raw > picture.png
  tikv get --format hex 00ff`,
		Args: exactly(1, "one key"),
		RunE: func(cmd *cobra.Command, args []string) error {
			keys, err := d.keys(args)
			if err != nil {
				return err
			}
			return d.with(cmd.Context(), true, func(ctx context.Context, s space) error {
				value, err := s.get(ctx, keys[0])
				if err != nil {
					return err
				}
				return d.value(io, keys[0], value)
			})
		},
	}
	d.flags(cmd)
	d.styleFlag(cmd)
	return cmd
}

func putCommand(io stdio) *cobra.Command {
	d := &dataCommand{io: io}
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "put KEY VALUE",
		Short: "Store a value",
		Long: `Store a value. VALUE - reads it from standard input, byte for byte. A key or a value that begins with a dash
comes after --, and in the format escaped a backslash is doubled.`,
		Example: `  tikv put greeting hello
  tikv put picture - < picture.png
  tikv put -- -key '-value with a zero byte: \x00'
  tikv put --raw --api v2 --ttl 1h session alice`,
		Args: exactly(2, "a key and a value"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("ttl") && ttl <= 0 {
				return &usageError{errors.New("--ttl must be positive")}
			}
			keys, err := d.keys(args[:1])
			if err != nil {
				return err
			}
			value, err := d.argument(cmd.Context(), args[1])
			if err != nil {
				return err
			}
			return d.with(cmd.Context(), true, func(ctx context.Context, s space) error {
				return s.put(ctx, keys[0], value, ttl)
			})
		},
	}
	d.flags(cmd)
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "expire after this long, in whole seconds (raw keys of v1ttl and v2)")
	return cmd
}

func (d *dataCommand) argument(ctx context.Context, arg string) ([]byte, error) {
	if arg == "-" {
		return aside(ctx, func() ([]byte, error) { return io.ReadAll(d.io.in) })
	}
	return d.format.decode(arg)
}

// aside runs what cannot be interrupted, as a read of standard input, and leaves it behind
// when ctx ends first.
func aside[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

// span is a range of keys on the command line.
type span struct{ prefix string }

func (s *span) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.prefix, "prefix", "", "only keys that begin with this")
}

// of reads [START [END]] or --prefix.
func (s *span) of(f format, args []string) (tikv.Range, error) {
	var r tikv.Range
	if s.prefix != "" {
		if len(args) > 0 {
			return r, &usageError{errors.New("--prefix excludes START and END")}
		}
		prefix, err := f.decode(s.prefix)
		return tikv.Prefix(prefix), err
	}
	for i, arg := range args {
		key, err := f.decode(arg)
		if err != nil {
			return r, err
		}
		*[]*[]byte{&r.Start, &r.End}[i] = key
	}
	return r, nil
}

func atMost(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > n {
			return &usageError{errors.New("expected " + what)}
		}
		return nil
	}
}

func scanCommand(io stdio) *cobra.Command {
	d := &dataCommand{io: io}
	var s span
	var limit int
	var reverse, keysOnly bool
	cmd := &cobra.Command{
		Use:   "scan [START [END]]",
		Short: "Print the keys and values of a range",
		Long:  "Print the keys and values from START up to but not including END, as of one moment (raw keys: as they are read).",
		Example: `  tikv scan --limit 10
  tikv scan --prefix user/ -o json
  tikv scan a m --reverse --keys-only`,
		Args: atMost(2, "at most START and END"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := s.of(d.format, args)
			if err != nil {
				return err
			}
			if limit < 0 {
				return &usageError{errors.New("--limit must not be negative")}
			}
			var opts []tikv.ScanOption
			if limit > 0 {
				opts = append(opts, tikv.WithLimit(limit))
			}
			if reverse {
				opts = append(opts, tikv.WithReverse())
			}
			if keysOnly {
				opts = append(opts, tikv.WithKeysOnly())
			}
			return d.with(cmd.Context(), false, func(ctx context.Context, sp space) error {
				out := d.pairs(io, keysOnly)
				for kv, err := range sp.scan(ctx, r, opts...) {
					if err != nil {
						return errors.Join(err, out.flush())
					}
					if err := out.write(kv); err != nil {
						return err
					}
				}
				return out.flush()
			})
		},
	}
	d.flags(cmd)
	d.styleFlag(cmd)
	s.flags(cmd)
	cmd.Flags().IntVar(&limit, "limit", 0, "at most this many pairs (0: all)")
	cmd.Flags().BoolVar(&reverse, "reverse", false, "from the end of the range to its start")
	cmd.Flags().BoolVar(&keysOnly, "keys-only", false, "do not read values")
	return cmd
}

func countCommand(io stdio) *cobra.Command {
	d := &dataCommand{io: io}
	var s span
	cmd := &cobra.Command{
		Use:   "count [START [END]]",
		Short: "Count the keys of a range",
		Long:  "Count the keys from START up to but not including END, of all of them by default, as of one moment (raw keys: as they\nare read). It reads every key.",
		Example: `  tikv count
  tikv count --prefix user/`,
		Args: atMost(2, "at most START and END"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := s.of(d.format, args)
			if err != nil {
				return err
			}
			return d.with(cmd.Context(), false, func(ctx context.Context, sp space) error {
				n, err := count(ctx, io, sp, r)
				if err != nil {
					return err
				}
				if d.style == styleJSON {
					_, err = fmt.Fprintf(io.out, "{\"keys\":%d}\n", n)
				} else {
					_, err = fmt.Fprintln(io.out, n)
				}
				return err
			})
		},
	}
	d.flags(cmd)
	d.styleFlag(cmd)
	s.flags(cmd)
	return cmd
}

// count walks r and shows how far it is on a terminal.
func count(ctx context.Context, io stdio, s space, r tikv.Range) (int, error) {
	bar := progress(io, "counting")
	defer bar.Finish()
	n := 0
	for _, err := range s.scan(ctx, r, tikv.WithKeysOnly()) {
		if err != nil {
			return n, err
		}
		if n++; n%1000 == 0 {
			bar.Set(n)
		}
	}
	return n, nil
}

// progress is a counter on standard error, seen only where that is a terminal.
func progress(io stdio, what string) *progressbar.ProgressBar {
	return progressbar.NewOptions(-1,
		progressbar.OptionSetWriter(io.err),
		progressbar.OptionSetVisibility(terminal(io.err)),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowCount(),
		progressbar.OptionShowIts(),
		progressbar.OptionSetItsString("keys"),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish())
}

func terminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func deleteCommand(io stdio) *cobra.Command {
	d := &dataCommand{io: io}
	var s span
	var from, to string
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete KEY…",
		Short: "Delete keys, or with --prefix or --from and --to a whole range",
		Long: `Delete keys; absent ones are no error. With --prefix, or --from and --to, all keys of a range: the number of
keys is shown first, and nothing is deleted without a yes. Deleting a range is not atomic.`,
		Example: `  tikv delete greeting session
  tikv delete --prefix user/
  tikv delete --from a --to m --yes`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ranged := s.prefix != "" || from != "" || to != ""
			switch {
			case ranged == (len(args) > 0):
				return &usageError{errors.New("expected keys, or --prefix, or --from and --to")}
			case ranged && s.prefix == "" && (from == "" || to == ""):
				return &usageError{errors.New("--from and --to go together")}
			}
			if ranged {
				var bounds []string
				if s.prefix == "" || from != "" || to != "" {
					bounds = []string{from, to}
				}
				r, err := s.of(d.format, bounds)
				if err != nil {
					return err
				}
				return d.with(cmd.Context(), false, func(ctx context.Context, sp space) error {
					return d.deleteRange(ctx, sp, r, yes)
				})
			}
			keys, err := d.keys(args)
			if err != nil {
				return err
			}
			return d.with(cmd.Context(), true, func(ctx context.Context, sp space) error { return sp.remove(ctx, keys) })
		},
	}
	d.flags(cmd)
	s.flags(cmd)
	cmd.Flags().StringVar(&from, "from", "", "first key of the range")
	cmd.Flags().StringVar(&to, "to", "", "first key after the range")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

func (d *dataCommand) deleteRange(ctx context.Context, s space, r tikv.Range, yes bool) error {
	n, err := count(ctx, d.io, s, r)
	if err != nil {
		return err
	}
	end := "the end of the key space"
	if len(r.End) > 0 {
		end = d.format.encode(r.End)
	}
	fmt.Fprintf(d.io.err, "This deletes %d keys, from %s up to but not including %s.\n", n, d.format.encode(r.Start), end)
	if n == 0 {
		return nil
	}
	if !yes {
		if ok, err := confirm(ctx, d.io); err != nil {
			return err
		} else if !ok {
			fmt.Fprintln(d.io.err, "Nothing was deleted.")
			return &silentError{exitFailure}
		}
	}
	bar := progress(d.io, "deleting")
	defer bar.Finish()
	return s.removeRange(ctx, r, func(keys int) { bar.Set(keys) })
}

// confirm asks on standard error and takes nothing but a yes.
func confirm(ctx context.Context, std stdio) (bool, error) {
	fmt.Fprint(std.err, "Type yes to go on: ")
	return aside(ctx, func() (bool, error) {
		line, err := bufio.NewReader(std.in).ReadString('\n')
		if err == io.EOF { // with or without a newline
			err = nil
		}
		return strings.TrimSpace(line) == "yes", err
	})
}
