//go:build made

package main

// made tells that the Makefile built the program, and with it set release. So the program needs no
// code that reads its own build information.
const made = true
