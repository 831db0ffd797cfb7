// Package uboot selects the bank through the U-Boot environment, natively: it runs no fw_setenv.
//
// # Format
//
// An environment copy, as U-Boot lays it out (env_t in include/env_internal.h, env/common.c; tools/env/fw_env.c reads the same):
//
//	offset  size  content
//	0       4     CRC-32 (IEEE) of the data, in the byte order of the machine; little-endian here
//	4       1     flag, only where there are two copies; not covered by the CRC
//	4 or 5  rest  data: name=value, NUL, name=value, NUL, ..., and one more NUL; what follows it means nothing but counts for the CRC
//
// Of two copies with a good CRC the one with the larger flag is active; 0 is larger than 255; of two equal ones the first is active
// (env_check_redund in env/common.c). That is the counting scheme of files and block devices. NOR flash marks copies active or obsolete
// instead, and is refused here with every other MTD and UBI device.
//
// # Promise
//
// A commit is one write of one whole copy: the one that is not active, or is damaged. It is flushed, and read back from the medium.
// The other copy stays as it is, so that a cut at any point leaves the old or the new environment. Variables that are not ours, and their order,
// stay byte for byte. A single copy cannot promise that: a cut can leave none. It is used only where the configuration says so in as many words.
//
// An environment is never created from nothing: U-Boot does not add its built-in defaults to a saved environment, so one that holds our variables alone
// would not boot. Where no copy is valid, the base is a full default environment that the configuration names, or nothing is written.
//
// A location without a good checksum is written only if it is blank or is seen to hold a damaged
// copy of the configured geometry. "No valid copy" may also mean that the size, the number of
// copies or the place is wrong: then the bytes are somebody else's. A copy that cannot be read may
// be the newer one: nothing is read or written until it can be.
//
// # Which variables
//
// A [Scheme] says how the variables and the selection belong together. A commit sets all variables of a scheme at once; it writes nothing if all are as they should be.
// No scheme lets the bootloader start anything but the default bank and an armed trial, with the limits that are named here.
//
// [OneShot], with the boot script share/uboot/fwu-ab.cmd: no limits. The script starts a trial only after it has disarmed it on the medium.
//
// [BootOrder], for boards prepared for RAUC (contrib/uboot.sh of RAUC, boot/bootmeth_rauc.c of U-Boot): a bank that may not be started is absent from BOOT_ORDER and has no attempts
// left. A trial has one, and the default bank, twice in BOOT_ORDER, comes behind it. The boot script takes an attempt from whatever it starts, the default bank
// included; the next commit, which the service makes once in each boot, gives it back. A BOOT_ORDER
// that lists both banks in any other way, as the script begins with and as RAUC leaves it, names no default bank: the one that runs becomes it. Limits:
//   - The usual script ignores a saveenv that fails. A trial is then started again, until the service runs in it and disarms it. U-Boot's boot method starts nothing in that case.
//   - Where no attempt is left at all, the script fills up every counter and resets. The default bank alone costs this one reset, nothing more. If the default bank, after a trial
//     that never reached its service, does not reach its own in three boots, the trial is started again.
//   - U-Boot's boot method must do so too (BOOTMETH_RAUC_RESET_ALL_ZERO_TRIES, as by default): else three boots that do not reach the service are the last ones.
//   - If the environment is lost, the script begins with a. Where a cannot be loaded, the script has to end in a reset: after three of them it is b's turn.
//
// [BootCount], for boards prepared for Mender or SWUpdate (drivers/bootcount/bootcount_env.c of U-Boot): U-Boot counts the boots while upgrade_available is 1, and runs altbootcmd
// instead of bootcmd when it has counted more than bootlimit, which is 1. altbootcmd is the board's: it exchanges the bank variables and sets upgrade_available to 0.
// Once the service runs in the new bank it makes the old one the plain default until the new one is accepted, so that altbootcmd is needed only for a trial that does not get that far. Limits:
//   - The count must be kept in the environment (BOOTCOUNT_ENV). A counter in a register or elsewhere also counts while upgrade_available is 0, and is nothing that
//     a commit could set: a trial is then skipped or repeated, and with bootlimit=1 altbootcmd exchanges the banks at any second boot.
//   - U-Boot ignores that it cannot save the count. A trial is then started again, until the service runs in it and disarms it.
//   - What altbootcmd does is not seen from here. If it does not exchange the banks, there is no fallback; without any a trial is not armed at all.
//   - If the environment is lost, the compiled-in one names the bank, usually a, whether it can be started or not.
package uboot
