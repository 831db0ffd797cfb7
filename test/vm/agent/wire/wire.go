// Package wire is what host and guest say to each other: a line of JSON each.
package wire

// Port is the name of the virtio-serial port.
const Port = "org.fwuab.agent"

// MaxLine bounds a line.
const MaxLine = 4 << 20

// Request asks for a command to be run.
type Request struct {
	ID      int
	Args    []string
	Stdin   []byte `json:",omitempty"`
	Seconds int    // after which it is ended
}

// Reply tells the outcome. The first one after the start of the agent has the ID 0, and the kernel's boot id as output.
type Reply struct {
	ID   int
	Code int // exit code, -1 if it did not end by itself
	Out  string
	Err  string
}
