package powercut

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// call is a system call that waits for an answer, as struct seccomp_notif (linux/seccomp.h).
type call struct {
	id   uint64
	pid  uint32
	_    uint32 // flags
	nr   int32
	arch uint32
	_    uint64 // instruction pointer
	args [6]uint64
}

// answer is struct seccomp_notif_resp.
type answer struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

// abi is how an architecture numbers its system calls, and where it passes a 64-bit offset.
type abi struct {
	audit uint32
	split bool // in two registers, the lower half first
}

func nativeABI() (abi, bool) {
	a, ok := map[string]abi{
		"amd64": {unix.AUDIT_ARCH_X86_64, false}, "arm64": {unix.AUDIT_ARCH_AARCH64, false}, "riscv64": {unix.AUDIT_ARCH_RISCV64, false},
		"386": {unix.AUDIT_ARCH_I386, true},
	}[runtime.GOARCH]
	return a, ok
}

// offsets reads n 64-bit numbers from arguments, of which the first is argument i.
func (a abi) offsets(args [6]uint64, i, n int) []int64 {
	var out []int64
	for range n {
		if a.split {
			out = append(out, int64(args[i]&0xffffffff|args[i+1]<<32))
			i += 2
			continue
		}
		out = append(out, int64(args[i]))
		i++
	}
	return out
}

// trapped are the system calls by which fwu-ab changes a medium, or makes changes durable.
func trapped() []uint32 {
	return []uint32{unix.SYS_PWRITE64, unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_FALLOCATE}
}

// trap has the trapped system calls of this thread, and of the programs that it starts, wait for an
// answer (seccomp_unotify(2)). It needs no privilege. The file is where the calls arrive.
func trap() (*os.File, error) {
	native, ok := nativeABI()
	if !ok {
		return nil, fmt.Errorf("system calls of %s: %w", runtime.GOARCH, errors.ErrUnsupported)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("set no-new-privileges: %w", err)
	}
	const nr, arch = 0, 4 // offsets in struct seccomp_data
	load := func(k uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: k}
	}
	calls := trapped()
	program := []unix.SockFilter{load(arch), {Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: native.audit, Jf: uint8(len(calls) + 1)}, load(nr)}
	for i, c := range calls {
		program = append(program, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: c, Jt: uint8(len(calls) - i)})
	}
	program = append(program, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF})
	f := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&f)))
	if errno != 0 {
		return nil, fmt.Errorf("have system calls answered (seccomp_unotify(2)): %w", errno)
	}
	return os.NewFile(fd, "seccomp"), nil
}

func receive(listener *os.File) (call, error) {
	var c call
	for {
		c = call{} // the kernel wants zeroes
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, listener.Fd(), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&c)))
		if errno == 0 {
			return c, nil
		}
		if errno != unix.EINTR {
			return c, fmt.Errorf("receive a system call: %w", errno)
		}
	}
}

// send answers a call. The caller may be gone, or a signal have interrupted it: then ok is false,
// and the caller makes the call again if it lives.
func send(listener *os.File, a answer) (ok bool, err error) {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, listener.Fd(), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&a)))
	switch errno {
	case 0:
		return true, nil
	case unix.ENOENT:
		return false, nil
	}
	return false, fmt.Errorf("answer a system call: %w", errno)
}
