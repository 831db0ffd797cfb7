//go:build !made

package main

const made = false
