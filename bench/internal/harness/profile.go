package harness

import (
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
	"runtime/trace"
)

// profiles are those of a run's measured part.
type profiles struct {
	spec     Spec
	cpu, trc *os.File
}

func (p *profiles) start() (err error) {
	if p.spec.CPUProfile != "" {
		if p.cpu, err = os.Create(p.spec.CPUProfile); err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(p.cpu); err != nil {
			return fmt.Errorf("profile: %w", err)
		}
	}
	if p.spec.Trace != "" {
		if p.trc, err = os.Create(p.spec.Trace); err != nil {
			return err
		}
		if err := trace.Start(p.trc); err != nil {
			return fmt.Errorf("trace: %w", err)
		}
	}
	return nil
}

func (p *profiles) stop() error {
	var errs []error
	if p.cpu != nil {
		pprof.StopCPUProfile()
		errs = append(errs, p.cpu.Close())
	}
	if p.trc != nil {
		trace.Stop()
		errs = append(errs, p.trc.Close())
	}
	if p.spec.MemProfile != "" {
		errs = append(errs, write("allocs", p.spec.MemProfile))
	}
	if p.spec.MutexProfile != "" {
		errs = append(errs, write("mutex", p.spec.MutexProfile))
	}
	return errors.Join(errs...)
}

func write(profile, name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup(profile).WriteTo(f, 0), f.Close())
}
