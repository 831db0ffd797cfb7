// Package partition holds images in partitions: it finds them, writes them, reads them back, seals and erases them. It knows no states.
//
// # What it promises
//
//   - Only what the medium returned after a flush counts. Every byte that is written is read back and compared with what was hashed. A block that the medium has already is not
//     written; to be compared it was read.
//   - A flush that fails voids everything since the last good one, whatever a later flush says.
//   - A slot that somebody else uses is refused, and by whom is said.
//   - Memory is constant: while an image is written or read four pieces of 512 KiB, or of the size of the slot if that is less, and always a copy of its head.
//
// # How an image lies in a slot
//
// An image begins at the first byte of its slot. Its first 128 KiB, the head, are stored masked:
// every bit inverted. A file system, table, kernel or container has its first superblock or header
// there, so that a masked head can be neither mounted nor started. [fwu.Head] tells, sector by
// sector of 512 bytes, masked from plain: the lowest bit of a sector's first byte is as recorded
// (plain) or not (masked). Unsealing is one write of the whole head; one that was cut leaves some
// sectors masked, some plain, and is completed by doing it again. A destroyed head is zeroes.
//
// The sector that begins a second header outside of the head is masked, too, if it has a signature
// that this package knows. It says itself which it is: the signature is there as it is, or
// inverted. Everything else is stored as it is.
//
// # Layers
//
// A [Device] is a raw medium; everything above works through that interface alone, with reads and writes of 4096-byte blocks from aligned memory. A [Slot] is
// made over anything that opens Devices. A [Finder] makes Slots of block devices, files and partitions of a disk with a GUID partition table
// (UEFI specification 2.11, section 5.3).
package partition
