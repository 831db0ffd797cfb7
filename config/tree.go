package config

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// maxKeyParts is how deep a key may be: ours have four parts.
const maxKeyParts = 16

// node is a value with the place where it stands.
type node struct {
	at    Pos              // of the value; of the key where a table or an array begins
	key   Pos              // of the key
	table map[string]*node // of a table; never nil there
	keys  []string         // of a table, in their order
	array []*node          // of an array; never nil there
	value any              // of a scalar: string, int64, bool, or otherKind
}

// otherKind is a scalar of a kind that no key takes, as a person calls it.
type otherKind string

func newTable(at Pos) *node { return &node{at: at, key: at, table: map[string]*node{}} }

func newArray(at Pos) *node { return &node{at: at, key: at, array: []*node{}} }

func (n *node) set(key string, child *node) {
	if _, ok := n.table[key]; !ok {
		n.keys = append(n.keys, key)
	}
	n.table[key] = child
}

// kind is what a person calls the node.
func (n *node) kind() string {
	switch v := n.value.(type) {
	case string:
		return "a string"
	case int64:
		return "an integer"
	case bool:
		return "a boolean"
	case otherKind:
		return string(v)
	}
	if n.table != nil {
		return "a table"
	}
	return "an array"
}

// merge lays over on top of n: tables are merged, anything else is replaced.
func (n *node) merge(over *node) {
	for _, key := range over.keys {
		upper, lower := over.table[key], n.table[key]
		if lower != nil && lower.table != nil && upper.table != nil {
			lower.merge(upper)
			continue
		}
		n.set(key, upper)
	}
}

// parse reads one file. Syntax, duplicates and redefined tables are judged by the decoder of the library; its parser is run
// a second time for the positions, which the decoder does not give away.
func parse(file string, data []byte) (*node, error) {
	var ignored map[string]any
	if err := toml.Unmarshal(data, &ignored); err != nil {
		var d *toml.DecodeError
		if errors.As(err, &d) {
			line, column := d.Position()
			return nil, &Error{Pos{file, line, column}, strings.TrimPrefix(d.Error(), "toml: ")}
		}
		return nil, &Error{Pos{File: file}, err.Error()}
	}
	p := &parser{file: file, data: data, root: newTable(Pos{File: file})}
	p.toml.Reset(data)
	current := p.root
	for p.toml.NextExpression() {
		var err error
		switch e := p.toml.Expression(); e.Kind {
		case unstable.Table, unstable.ArrayTable:
			current, err = p.header(e)
		case unstable.KeyValue:
			err = p.keyValue(current, e)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := p.toml.Error(); err != nil { // cannot be: the decoder took it
		return nil, &Error{Pos{File: file}, err.Error()}
	}
	return p.root, nil
}

type parser struct {
	file string
	data []byte
	root *node
	toml unstable.Parser

	// Where the line was that was asked for last: positions are asked for nearly in order.
	offset, line, start int
}

func (p *parser) pos(r unstable.Range) Pos {
	offset := int(r.Offset)
	if offset < p.offset {
		p.offset, p.line, p.start = 0, 0, 0
	}
	p.line += bytes.Count(p.data[p.offset:offset], []byte{'\n'})
	if i := bytes.LastIndexByte(p.data[p.offset:offset], '\n'); i >= 0 {
		p.start = p.offset + i + 1
	}
	p.offset = offset
	return Pos{p.file, p.line + 1, offset - p.start + 1}
}

type keyPart struct {
	name string
	at   Pos
}

func (p *parser) key(e *unstable.Node) ([]keyPart, error) {
	var parts []keyPart
	for it := e.Key(); it.Next(); {
		k := it.Node()
		at := p.pos(k.Raw)
		if len(parts) == maxKeyParts {
			return nil, &Error{at, fmt.Sprintf("key of more than %d parts", maxKeyParts)}
		}
		parts = append(parts, keyPart{string(k.Data), at})
	}
	return parts, nil
}

// descend returns the table below n that the part names, and makes it if it is not there. For an array of tables it is the last.
func descend(n *node, part keyPart) (*node, error) {
	child := n.table[part.name]
	if child == nil {
		child = newTable(part.at)
		n.set(part.name, child)
	}
	if len(child.array) > 0 {
		child = child.array[len(child.array)-1]
	}
	if child.table == nil {
		return nil, &Error{part.at, fmt.Sprintf("%q is %s, not a table", part.name, child.kind())}
	}
	return child, nil
}

func (p *parser) header(e *unstable.Node) (*node, error) {
	parts, err := p.key(e)
	if err != nil {
		return nil, err
	}
	n := p.root
	last := len(parts) - 1
	for _, part := range parts[:last] {
		if n, err = descend(n, part); err != nil {
			return nil, err
		}
	}
	if e.Kind == unstable.Table {
		return descend(n, parts[last])
	}
	list := n.table[parts[last].name]
	if list == nil {
		list = newArray(parts[last].at)
		n.set(parts[last].name, list)
	}
	if list.array == nil {
		return nil, &Error{parts[last].at, fmt.Sprintf("%q is %s, not an array", parts[last].name, list.kind())}
	}
	element := newTable(parts[last].at)
	list.array = append(list.array, element)
	return element, nil
}

func (p *parser) keyValue(n *node, e *unstable.Node) error {
	parts, err := p.key(e)
	if err != nil {
		return err
	}
	last := len(parts) - 1
	for _, part := range parts[:last] {
		if n, err = descend(n, part); err != nil {
			return err
		}
	}
	v, err := p.valueOf(e.Value(), parts[last].at)
	if err != nil {
		return err
	}
	v.key = parts[last].at
	n.set(parts[last].name, v)
	return nil
}

// valueOf reads a value; at is where it stands if the parser does not say. The parser bounds the depth.
func (p *parser) valueOf(e *unstable.Node, at Pos) (*node, error) {
	switch e.Kind {
	case unstable.Array:
		n := newArray(at)
		for it := e.Children(); it.Next(); {
			element, err := p.valueOf(it.Node(), at)
			if err != nil {
				return nil, err
			}
			n.array = append(n.array, element)
		}
		return n, nil
	case unstable.InlineTable:
		n := newTable(p.pos(e.Raw))
		for it := e.Children(); it.Next(); {
			if err := p.keyValue(n, it.Node()); err != nil {
				return nil, err
			}
		}
		return n, nil
	}
	n := &node{at: p.pos(e.Raw)}
	switch e.Kind {
	case unstable.String:
		n.value = string(e.Data)
	case unstable.Bool:
		n.value = string(e.Data) == "true"
	case unstable.Integer:
		i, err := strconv.ParseInt(strings.ReplaceAll(string(e.Data), "_", ""), 0, 64)
		if err != nil {
			return nil, &Error{n.at, fmt.Sprintf("integer %q: %v", e.Data, err)}
		}
		n.value = i
	case unstable.Float:
		n.value = otherKind("a floating-point number")
	default:
		n.value = otherKind("a date or time")
	}
	return n, nil
}
