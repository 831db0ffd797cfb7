// Package zstdframe is the form in which images travel compressed: a sequence of small Zstandard frames (RFC 8878), each of which is decoded by itself.
//
// A service uses [New] or [Resume]: blocks of the stream are pushed into [Decoder.Write] as they come, and each frame comes out of it as a block of the
// image once it is whole. [Decoder.Complete] says at the end whether that was all. On a machine that has the stream as a file, [NewReader] is the same
// decoder as a reader. [Compress] makes such streams.
//
// Why frames are small:
//   - The frame is the unit of memory. A decoder holds one frame that is not whole yet and the content of one that is, about 8 MiB in all at most, whatever the
//     stream says. There is no window that outlives a frame, and so no decoder state that had to wait in a goroutine for the next block.
//   - The frame is the unit of resumption. Between two frames nothing but [Decoder.Position] is needed to go on: where a transfer was cut off, another
//     decoder, after a power cut or on another day, begins at the last frame whose content is durable.
//
// The format, a profile of RFC 8878:
//   - Zstandard frames (section 3.1.1), one after the other. Each has a Frame_Content_Size of 1 byte to [MaxContent]. Its Window_Size is at most
//     MaxContent, or it is a Single_Segment. It has no Dictionary_ID. A Content_Checksum is verified where there is one.
//   - A frame is not longer than its content, 1/256 of that, and 64 bytes: see [MaxFrame].
//   - Skippable frames (section 3.1.2) may stand before, between and after these and are ignored; a seek table is one. Each has at most
//     [MaxSkippable] bytes of User_Data, and all that one decoder sees have at most [MaxSkipped] bytes, with their headers.
//   - The contents, joined, are the image. Who makes a decoder says how long that is. After its last byte only skippable frames follow.
//
// Everything else is refused by name: legacy frames, dictionaries, reserved block types and reserved or unused bits, a content size that is missing or 0,
// larger windows. Such an error wraps [ErrFrame]. A stream of the profile is an ordinary Zstandard stream: zstd -d decodes it, and what zstd makes of each
// piece of a file that was split into pieces of 4 MiB or less is one when joined.
//
// What comes out is not authentic. A checksum finds damage, not forgery: only the digest of the image that a manifest states does.
package zstdframe

// Bounds of the format. Nothing that is larger has memory taken for it.
const (
	// MaxContent bounds the content of a frame, and its window.
	MaxContent = 4 << 20
	// MaxFrame bounds a whole frame. Data that do not compress cost 3 bytes for each block (RFC 8878, section 3.1.1.2), and a block has at least
	// 1 KiB, the smallest Window_Size, if it is not the last one: less than 1/256. Header and checksum have 18 bytes. The reference compressor
	// promises the same bound. It holds for each frame by the size of its own content, so that empty blocks are of no use to keep a decoder busy.
	MaxFrame = MaxContent + MaxContent/256 + frameOverhead
	// MaxSkippable bounds the User_Data of a skippable frame: a seek table for images of 5 GiB.
	MaxSkippable = 64 << 10
	// MaxSkipped bounds all skippable frames that one decoder sees, headers included.
	MaxSkipped = 1 << 20

	frameOverhead = 64
)

// ErrFrame is what every error wraps that says that a stream is not of the format.
const ErrFrame = constError("not a sequence of zstd frames of the profile")

type constError string

func (e constError) Error() string { return string(e) }
