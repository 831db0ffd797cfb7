// Package child starts programs that do not outlive the program that started them.
package child

import (
	"os/exec"
	"runtime"
	"syscall"
)

// Start starts cmd in a process group of its own. The kernel kills cmd when this process ends, also
// when this process is killed. wait is cmd.Wait; call it once.
//
// The kernel takes the end of the thread that started cmd for the end of its parent
// (PR_SET_PDEATHSIG in prctl(2)). So one thread belongs to cmd until cmd has ended. prepare, which
// may be nil, is called on that thread before cmd starts; cmd inherits the changes that it makes to
// the thread, and the thread is used for nothing else afterwards.
func Start(cmd *exec.Cmd, prepare func() error) (wait func() error, err error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig, cmd.SysProcAttr.Setpgid = syscall.SIGKILL, true
	started, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		if prepare != nil {
			if err := prepare(); err != nil {
				started <- err
				return
			}
		}
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return func() error { return <-ended }, nil
}
