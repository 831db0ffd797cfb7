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
//  6. Where the firmware keeps its variables in memory, its file is written.
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
// # Firmware that keeps its variables in memory
//
// U-Boot's UEFI implementation keeps them in a file on the EFI system partition, which belongs to
// the system while one runs. With CONFIG_EFI_RT_VOLATILE_STORE it lets the system change the
// variables in memory, names the file in RTStorageVolatile, and shows in VarToFile the content
// that the file has to hold. Then
//
//   - the selection is that of the file: memory is gone at the next boot. A file that the firmware
//     would not take (EBBR specification 2.2, chapter 5) holds no variables;
//   - a commit makes its changes in memory, in the order above, and then writes VarToFile to the
//     file. So one write makes all changes of a commit, and is read back;
//   - a commit writes the file also where memory was right already: the service may have ended
//     in between, or another program changed memory only.
//
// The file is replaced, not overwritten: U-Boot refuses a file whose length or checksum is wrong as
// a whole, and one that is overwritten in place has such a state in between. The order, where the
// kernel's vfat driver is at work (fs/fat/namei_vfat.c, inode.c and file.c):
//
//  1. The old file is opened, which keeps its clusters from being freed until the end.
//  2. The new content goes to a new file, is flushed, and read back from the medium.
//  3. The new file is renamed. In memory the old file's directory entry has the clusters of the new
//     one now, and that of the new file is deleted.
//  4. The directory is flushed: the deletion. The clusters of the new file are nobody's on the
//     medium.
//  5. The new file is flushed: one sector with the directory entry that has its clusters and its
//     size now. That is the commit.
//  6. The old file is closed. Its clusters become free.
//
// A cut leaves the old content or the new one. It may also leave a new file, which the next
// write removes, or clusters that are nobody's, which fsck.fat frees. If the kernel itself writes
// the sector of step 5 before that of step 4 (another program called sync(2) within these
// milliseconds, or the partition is mounted with sync or dirsync), a cut between the two leaves two
// names for the same clusters. Then nothing is removed or written any more, and the error says that
// fsck.fat is needed.
//
// U-Boot itself overwrites the file in place, when it deletes BootNext. A cut in that moment, some
// milliseconds of a boot that tries an update, can leave a file that it refuses. Then it has no
// variables, and starts the default that the board prepared.
//
// # Limits
//
//   - Firmware that cannot change variables while a system runs (U-Boot without that option) cannot
//     be used: the selector says so.
//   - Firmware whose boot manager offers entries that are not in BootOrder in a menu lets a person start the other bank. If that one is sealed it cannot be loaded.
//   - If all variables are lost, the firmware falls back to what the board prepared: see share/efi/startup.nsh.
package efi
