// Package systemd speaks with the service manager and with logind: readiness, the watchdog, a reboot, the restart of a unit, the log.
//
// It promises that an error is looked at and told, that nothing that it starts outlives the context of the call, and that a reboot
// goes through the bootloader: never through kexec and never a soft reboot, both of which would start a kernel or a user space
// without asking the boot selector.
package systemd
