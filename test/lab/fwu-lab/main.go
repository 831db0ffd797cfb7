// Command fwu-lab is a device to try things on, without hardware and without root: the real
// service, as you, on a disk image, with a message bus of its own.
//
//	fwu-lab DIR           makes a device in DIR, or takes the one that is there, and switches it on
//	fwu-lab DIR COMMAND   gives a command to the lab that runs in DIR; "help" lists them
//
// The lab takes the same commands on its standard input. It ends with quit, with SIGINT or SIGTERM,
// or with the end of input from a terminal. Whatever ends it, also SIGKILL, nothing goes on
// running.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/term"
)

func main() {
	program := flag.String("fwu-ab", "build/fwu-ab", "the program fwu-ab")
	rate := flag.String("rate", "0", "bytes that the disk takes in a second, as 20M; 0: as many as it can")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: fwu-lab [flags] DIR [COMMAND]\n\nCommands to the lab that runs in DIR:\n%s\nFlags:\n", help)
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *program, *rate, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "fwu-lab: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, program, rate string, args []string) error {
	if len(args) == 0 {
		return errors.New("a directory is missing; see fwu-lab -help")
	}
	dir, err := filepath.Abs(args[0])
	if err != nil {
		return err
	}
	if len(args) > 1 {
		return send(ctx, dir, strings.Join(args[1:], " "), os.Stdout)
	}
	n, err := parseSize(rate)
	if err != nil {
		return fmt.Errorf("-rate: %w", err)
	}
	if program, err = filepath.Abs(program); err != nil {
		return err
	}
	l, err := open(ctx, dir, program, n, os.Stdout)
	if err != nil {
		return err
	}
	lines := make(chan string)
	// until the end of the process: nothing interrupts a read of a terminal
	go read(os.Stdin, lines)
	return errors.Join(l.run(ctx, lines), l.close())
}

// read sends the lines of the input, and quit at the end of a terminal's.
func read(in *os.File, lines chan<- string) {
	s := bufio.NewScanner(in)
	for s.Scan() {
		lines <- s.Text()
	}
	if term.IsTerminal(int(in.Fd())) {
		lines <- "quit"
	}
}

// tee writes to a second writer too, for the time of a command from another terminal.
type tee struct {
	out, also io.Writer
}

func (t *tee) Write(p []byte) (int, error) {
	if t.also != nil {
		_, _ = t.also.Write(p) // a buffer
	}
	return t.out.Write(p)
}
