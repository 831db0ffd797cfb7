package uboot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fwu-ab/fwu-ab/emmc"
	"github.com/fwu-ab/fwu-ab/fwu"
)

// Medium is a file or device that holds copies of the environment. Every ReadAt comes from the
// medium, not from a cache in front of it, and is made with fwu.ReadFull: nothing of a read that
// failed is used.
type Medium interface {
	io.ReaderAt
	io.WriterAt
	// Sync makes what was written durable.
	Sync() error
	Size() int64
	Close() error
}

// Opener opens the medium at a path that exists, to be read, or read and written.
type Opener func(path string, write bool) (Medium, error)

// mtdBlockMajor is the major number of mtdblock devices (Documentation/admin-guide/devices.txt of the kernel).
const mtdBlockMajor = 31

// OpenLifting is OpenMedium that lifts the write protection of an eMMC boot partition for the time
// in which it is open to be written.
func OpenLifting(path string, write bool) (Medium, error) {
	var st unix.Stat_t
	if !write || unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return OpenMedium(path, write)
	}
	protect, err := emmc.Unprotect(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	m, err := OpenMedium(path, write)
	if err != nil {
		return nil, errors.Join(err, protect())
	}
	return lifted{m, protect}, nil
}

// lifted puts write protection back when it is closed.
type lifted struct {
	Medium
	protect func() error
}

func (l lifted) Close() error { return errors.Join(l.Medium.Close(), l.protect()) }

// OpenMedium is the Opener of the real system. A block device is read and written past the page cache (O_DIRECT) where the device allows it, in whole logical blocks;
// what shares a block with a copy is read and written back unchanged. A file is flushed, and dropped from the page cache before it is read.
// It creates nothing and refuses character devices: MTD is not supported yet.
func OpenMedium(path string, write bool) (Medium, error) {
	flag := os.O_RDONLY
	if write {
		flag = os.O_RDWR
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	switch mode := info.Mode(); {
	case mode&os.ModeCharDevice != 0:
		return nil, fmt.Errorf("%s: a character device; an environment on an MTD device is not supported yet", path)
	case mode.IsRegular():
		f, err := os.OpenFile(path, flag, 0)
		if err != nil {
			return nil, err
		}
		return sized(&cached{File: f})
	case mode&os.ModeDevice != 0:
		return openBlock(path, flag)
	}
	return nil, fmt.Errorf("%s: neither a file nor a block device", path)
}

func openBlock(path string, flag int) (Medium, error) {
	f, err := os.OpenFile(path, flag|unix.O_DIRECT, 0)
	direct := err == nil
	if err != nil {
		if f, err = os.OpenFile(path, flag, 0); err != nil {
			return nil, err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, fmt.Errorf("stat %s: %w", path, err)
	}
	if unix.Major(uint64(st.Rdev)) == mtdBlockMajor {
		f.Close()
		return nil, fmt.Errorf("%s: an mtdblock device; an environment on an MTD device is not supported yet", path)
	}
	if !direct {
		return sized(&cached{File: f})
	}
	block, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET)
	if err == nil && (block < 512 || block > 1<<16) {
		err = fmt.Errorf("%d bytes", block)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("logical block size of %s: %w", path, err)
	}
	m, err := sized(&cached{File: f})
	if err != nil {
		return nil, err
	}
	return &blocks{m, int64(block)}, nil
}

// cached is a file or device behind the page cache. Dropping the pages of a file that was opened with O_DIRECT does no harm.
type cached struct {
	*os.File
	size int64
}

func sized(c *cached) (Medium, error) {
	var err error
	if c.size, err = c.Seek(0, io.SeekEnd); err != nil {
		c.File.Close()
		return nil, fmt.Errorf("size of %s: %w", c.Name(), err)
	}
	return c, nil
}

func (c *cached) Size() int64 { return c.size }

func (c *cached) ReadAt(p []byte, off int64) (int, error) {
	// Pages that are still dirty stay, so what is read is what was written last in any case.
	if err := unix.Fadvise(int(c.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return 0, fmt.Errorf("drop cache of %s: %w", c.Name(), err)
	}
	return c.File.ReadAt(p, off)
}

// blocks makes every access one of whole blocks, from memory that is aligned to them, as O_DIRECT demands.
type blocks struct {
	Medium
	block int64
}

// span returns an aligned buffer for the blocks that hold n bytes at off, and the offset of the first one.
func (b *blocks) span(n int, off int64) ([]byte, int64) {
	start := off / b.block * b.block
	end := (off + int64(n) + b.block - 1) / b.block * b.block
	return alignedBytes(int(end-start), int(b.block)), start
}

func (b *blocks) ReadAt(p []byte, off int64) (int, error) {
	buf, start := b.span(len(p), off)
	if err := fwu.ReadFull(b.Medium, buf, start); err != nil {
		return 0, err
	}
	return copy(p, buf[off-start:]), nil
}

func (b *blocks) WriteAt(p []byte, off int64) (int, error) {
	buf, start := b.span(len(p), off)
	if len(buf) != len(p) {
		if err := fwu.ReadFull(b.Medium, buf, start); err != nil {
			return 0, fmt.Errorf("read the blocks around: %w", err)
		}
	}
	copy(buf[off-start:], p)
	if _, err := b.Medium.WriteAt(buf, start); err != nil {
		return 0, err
	}
	return len(p), nil
}

func alignedBytes(n, align int) []byte {
	buf := make([]byte, n+align)
	skip := (align - int(uintptr(unsafe.Pointer(unsafe.SliceData(buf)))%uintptr(align))) % align
	return buf[skip : skip+n : skip+n]
}
