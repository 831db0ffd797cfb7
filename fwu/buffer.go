package fwu

import "unsafe"

// Buffer returns n bytes whose address is a multiple of WriteAlignment: what is written from there is not copied. Memory of Go does not move.
func Buffer(n int) []byte {
	b := make([]byte, n+WriteAlignment)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) % WriteAlignment)
	return b[skip : skip+n : skip+n]
}
