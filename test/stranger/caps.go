package stranger

import "golang.org/x/sys/unix"

// Unprivileged runs f as root without any capability, as a sandboxed unit of root runs: the
// permissions of files count.
func Unprivileged(f func() error) error {
	return onThread(func() error {
		head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		return unix.Capset(&head, &none[0])
	}, f)
}
