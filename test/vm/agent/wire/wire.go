// Package wire is what host and guest say to each other: a line of JSON each.
package wire

// Port is the name of the virtio-serial port.
const Port = "org.fwuab.agent"

// MaxLine bounds a line.
const MaxLine = 4 << 20

// Request asks the agent to run a command.
type Request struct {
	ID      int
	Args    []string
	Dir     string   `json:",omitempty"` // the working directory
	Env     []string `json:",omitempty"` // is added to the agent's environment
	Stdin   []byte   `json:",omitempty"`
	Seconds int      // after which it is ended
	Stream  bool     `json:",omitempty"` // send output while the command runs
}

// Reply tells the outcome. The first reply after the start of the agent has the ID 0, and the
// kernel's boot id as output.
type Reply struct {
	ID   int
	Code int // exit code, -1 if it did not end by itself
	Out  string
	Err  string
	More bool `json:",omitempty"` // the command still runs: this is a piece of its output
}
