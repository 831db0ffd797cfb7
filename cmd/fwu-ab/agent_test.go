package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestAgents runs each agent of examples against the service, with the same scripts: what one does in a state and prints, all do.
func TestAgents(t *testing.T) {
	if os.Getenv("FWUAB_TEST_ALL") == "" {
		t.Skip("takes a minute: set FWUAB_TEST_ALL")
	}
	for name, build := range map[string]func(*testing.T) string{"shell": shellAgent, "python": pythonAgent, "c": cAgent, "go": goAgent} {
		t.Run(name, func(t *testing.T) {
			needTools(t, "dbus-daemon")
			agent := build(t)
			p := scripts("testdata/agent")
			p.Setup = func(e *testscript.Env) error {
				e.Setenv("AGENT", agent)
				return nil
			}
			p.Condition = func(c string) (bool, error) {
				if c != "details" {
					return false, fmt.Errorf("unknown condition %q", c)
				}
				return name != "shell", nil // its tools do not show the details of an error
			}
			testscript.Run(t, p)
		})
	}
}

// example is the path of a file of the examples.
func example(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../examples", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// compile runs what finds mistakes.
func compile(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

func shellAgent(t *testing.T) string {
	needTools(t, "busctl", "gdbus", "shellcheck")
	agent := example(t, "shell/agent.sh")
	compile(t, "shellcheck", agent)
	return agent
}

func pythonAgent(t *testing.T) string {
	needTools(t, "/usr/bin/python3")
	if out, err := exec.Command("/usr/bin/python3", "-c", "import jeepney").CombinedOutput(); err != nil {
		missing(t, "python3-jeepney: ", err, string(out))
	}
	return example(t, "python/agent.py")
}

func cAgent(t *testing.T) string {
	needTools(t, "gcc", "pkg-config")
	flags, err := exec.Command("pkg-config", "--cflags", "--libs", "libsystemd").CombinedOutput()
	if err != nil {
		missing(t, "libsystemd-dev: ", err, string(flags))
	}
	agent := filepath.Join(t.TempDir(), "agent")
	compile(t, "gcc", append([]string{"-std=c11", "-Wall", "-Wextra", "-Werror", "-o", agent, example(t, "c/agent.c")}, strings.Fields(string(flags))...)...)
	return agent
}

func goAgent(t *testing.T) string {
	needTools(t, "go")
	agent := filepath.Join(t.TempDir(), "agent")
	compile(t, "go", "build", "-o", agent, "../../examples/go")
	return agent
}
