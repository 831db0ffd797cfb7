// Command tiny is the program whose start shows that a machine runs 32-bit programs. It says how
// many bits its integers have, and ends when its input does.
package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
)

func main() {
	fmt.Println(strconv.IntSize)
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		os.Exit(1)
	}
}
