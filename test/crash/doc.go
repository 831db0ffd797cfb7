// Package crash holds tests only: no power cut and no failing medium does harm.
//
// The real service, over the real slots and the real boot selector, plays stories on simulated media (package sim). Every write of every story is cut before it,
// within it and after it, and what was not flushed is lost or lands in another order; the bootloader's own writes are cut like all others. Then a model of the
// bootloader starts a bank, the service starts on what is left, and a client that knows nothing but the API brings every component back to READY and
// makes one more whole update. After each step the invariants are checked (judge_test.go). The same is done with a second cut during that
// recovery, with every boot variable lost, with the record lost, and with a record that another version of the service wrote.
//
// The images are a few pieces long and have several checkpoints each: pieces of 16 KiB, checkpoints
// of 32 KiB. Media of a second kind have commands to zero and to discard, and those of a third are
// read while they are written. There a seed, which is part of the name of each case, decides in
// which order the accesses of several goroutines are made.
//
// The second suite lets every read, write and flush of the stories fail once, in every way that a medium has.
//
// The third suite does the same with the kernel of this machine between the service and the media:
// slots, record and the environment of U-Boot are block devices (package fault), which the service
// opens as it does on a device. The errors are chosen from those of the second suite, are judged in
// the same way, and have to end as they do there. Root and /dev/fuse are needed.
//
// go test runs a sample that takes seconds. FWUAB_CRASH=deep runs six times as many cases, and 720
// errors of the kernel. FWUAB_CRASH=full runs everything, and 2400 errors of the kernel, which
// takes minutes (give it -timeout 30m; with -v it prints the number of cuts of each story).
// FWUAB_CRASH_SEED replays one case: a failing one prints its seed.
package crash
