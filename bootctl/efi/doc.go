// Package efi selects the bank through the variables of the UEFI boot manager, natively: it runs no efibootmgr.
//
// # Format
//
// UEFI specification 2.11, chapter 3. A variable Boot#### is an entry of the boot manager, an EFI_LOAD_OPTION:
//
//	offset  size  content
//	0       4     attributes; 1: active
//	4       2     size of the device path
//	6       n     description, UTF-16 with a zero
//	6+n     m     device path: HD(partition, GPT, PARTUUID, first sector, sectors), File(path of the loader), end
//	6+n+m   rest  the command line, UTF-16 without a zero; nothing if there is none
//
// BootOrder lists the numbers of the entries that are tried, the first one first. BootNext holds the number of one that is tried before them, once: the firmware deletes BootNext
// before it starts what it names. BootCurrent holds the number of the one that was started. All integers are little-endian.
//
// Our entries are those with the description "fwu-ab a" or "fwu-ab b"; a machine has one such pair. An entry of ours counts if it names, by its PARTUUID, the partition that has the
// loader of its bank now. All other entries, and their order in BootOrder, are those of others, and stay.
//
// # States
//
//	state                                   BootOrder           BootNext
//	a is the default                        a, others
//	b is armed                              a, others           b
//	b was started; every reset starts a     a, others
//	b was accepted                          b, others
//	no default bank                         others, or none
//
// The default bank is that of the first entry of ours in BootOrder that counts and is active, whatever stands before it: the firmware puts what it finds, a memory stick or the
// network, wherever it likes, and what it can start from there is no bank. A commit puts ours to the head, and the service commits once in each boot. The entry of the bank that
// is not the default is not in BootOrder, so that the firmware never falls back to it; it stays as a variable.
//
// The trial is the bank that BootNext names. A BootNext that names no entry of ours was set by a person or by the firmware itself, for once: it is no trial, it stays when a default
// is committed, and it is replaced when a trial is armed.
//
// # Order of writes
//
// A variable is replaced by one call of the firmware, which promises the old or the new one after a power cut, and is read back. Each commit changes the selection with one of them:
//
//  1. The entry of the default bank is made if there is none, under a number that nothing uses or refers to: neither a variable nor BootOrder, BootNext or BootCurrent.
//     Numbers begin at 0080: firmware gives the lowest that BootOrder does not have to what it finds, whatever variable is there, and writes BootOrder before the entry.
//     If it is there but damaged it is replaced in one write, by what starts the same bank.
//  2. BootOrder, if it has to change. That is what commits a default bank.
//  3. Without a trial: BootNext is deleted if it names an entry of ours. That is what disarms. Where the default changes in the same commit, BootOrder was first, and names the bank
//     of BootNext, or else leaves nothing but the old trial behind.
//  4. With a trial: its entry is made or replaced; nothing refers to it, unless it is armed already. Then BootNext is written. That is what arms.
//  5. Entries of ours that are left over, and that nothing refers to, are deleted.
//
// A commit that changes the default and arms a trial too, which the service never asks for, passes through the new default without a trial.
//
// # When an entry is written
//
// The entry of a trial is made anew by each arming commit, if it differs from what the configuration and the partition table say. The entry of the default bank stays, even with another file
// or command line, as long as it names the right partition, has a command line with its own fwu.bank=, and this system was started by an entry of ours: a new file or command line is
// first tried by a trial, like everything else that an update brings, and the fallback of a trial is not touched by it. It is replaced where it is damaged, and where the
// firmware had to use its fallback.
//
// # Limits
//
//   - Firmware that cannot change variables while a system runs (many boards with U-Boot's UEFI implementation) cannot be used: the selector says so.
//   - Firmware whose boot manager offers entries that are not in BootOrder in a menu lets a person start the other bank. If that one is sealed it cannot be loaded.
//   - If all variables are lost, the firmware falls back to what the board prepared: see share/efi/startup.nsh.
package efi
