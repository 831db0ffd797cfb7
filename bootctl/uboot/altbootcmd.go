package uboot

import (
	"fmt"
	"slices"
	"strings"
)

// maxFollowed bounds how many variables with commands are followed.
const maxFollowed = 100

// effects are the variables that a script of U-Boot's shell sets, and those that it runs.
type effects struct {
	sets, deletes []string
	runs          []string // variables that were followed, the first one included
	unknown       string   // a command whose effects the environment does not tell
}

// follow reads the script in a variable, and those that it runs. Each variable is read once,
// whatever the conditions around its commands are.
func follow(e *Env, variable string) effects {
	f := effects{runs: []string{variable}}
	for i := 0; i < len(f.runs); i++ {
		if i == maxFollowed {
			f.unknown = "run " + f.runs[i]
			break
		}
		script, _ := e.Get(f.runs[i])
		commands(script, f.add)
	}
	return f
}

// add notes the effects of one command.
func (f *effects) add(words []string) {
	const keywords = " if then elif else while until do ! env "
	for len(words) > 0 && strings.Contains(keywords, " "+words[0]+" ") {
		words = words[1:]
	}
	if len(words) == 0 {
		return
	}
	command, arguments := words[0], words[1:]
	for len(arguments) > 0 && strings.HasPrefix(arguments[0], "-") {
		arguments = arguments[1:]
	}
	computed := slices.ContainsFunc(arguments[:min(1, len(arguments))], hasVariable)
	switch command {
	case "run":
		computed = slices.ContainsFunc(arguments, hasVariable)
		for _, name := range arguments {
			if !slices.Contains(f.runs, name) && len(f.runs) <= maxFollowed {
				f.runs = append(f.runs, name)
			}
		}
	case "setenv", "set", "setexpr":
		switch len(arguments) {
		case 0:
		case 1:
			f.deletes = append(f.deletes, arguments[0])
		default:
			f.sets = append(f.sets, arguments[0])
		}
	case "source", "import":
		computed = true
	default:
		computed = hasVariable(command)
	}
	if computed {
		f.unknown = strings.Join(words, " ")
	}
}

func hasVariable(word string) bool { return strings.Contains(word, "$") }

// commands splits a script into commands, and these into words without their quotes
// (common/cli_hush.c).
func commands(script string, each func(words []string)) {
	var words []string
	var word []byte
	begun, quote := false, byte(0)
	endWord := func() {
		if begun {
			words = append(words, string(word))
		}
		word, begun = word[:0], false
	}
	for i := 0; i < len(script); i++ {
		c := script[i]
		switch {
		case c == '\\' && quote != '\'' && i+1 < len(script):
			i++
			word, begun = append(word, script[i]), true
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word = append(word, c)
		case c == '"' || c == '\'':
			quote, begun = c, true
		case c == ' ' || c == '\t':
			endWord()
		case strings.IndexByte(";&|\n(){}", c) >= 0 && !(c == '{' && strings.HasSuffix(string(word), "$")) && !(c == '}' && strings.Contains(string(word), "${")):
			endWord()
			each(words)
			words = nil
		default:
			word, begun = append(word, c), true
		}
	}
	endWord()
	each(words)
}

// faults says why a trial that fails does not lead back to the other bank, as far as the
// environment tells; and, as notes, where it does not tell.
func (s bootCount) faults(e *Env) (faults, notes []string) {
	if _, ok := e.Get(VarAltBootCmd); !ok {
		return nil, nil // an install is refused
	}
	f := follow(e, VarAltBootCmd)
	var missing []string
	for _, name := range s.names {
		if !slices.Contains(f.sets, name) {
			missing = append(missing, name)
		}
	}
	if !slices.Contains(f.sets, VarUpgrade) && !slices.Contains(f.deletes, VarUpgrade) {
		missing = append(missing, VarUpgrade)
	}
	if len(missing) == 0 {
		return nil, nil
	}
	text := fmt.Sprintf("%s does not set %s", strings.Join(f.runs, ", "), strings.Join(missing, ", "))
	if f.unknown != "" {
		return nil, []string{fmt.Sprintf("%s; what %q does is not known: try a trial that fails", text, f.unknown)}
	}
	return []string{text + ": it has to exchange the banks and end the trial, or a new system that does not start is started again and again"}, nil
}
