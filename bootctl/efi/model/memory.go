package model

import (
	"bytes"
	"io/fs"
	"maps"
	"slices"

	"github.com/fwu-ab/fwu-ab/bootctl/efi"
)

// Memory keeps variables in memory.
type Memory struct {
	Content map[string]efi.Variable
	// Change is called before each change; an error forbids it. May be nil.
	Change func(name string) error
}

var _ efi.Variables = (*Memory)(nil)

// Read returns a variable.
func (m *Memory) Read(name string) (efi.Variable, error) {
	v, ok := m.Content[name]
	if !ok {
		return v, fs.ErrNotExist
	}
	return efi.Variable{Attributes: v.Attributes, Data: bytes.Clone(v.Data)}, nil
}

// Write makes or replaces a variable.
func (m *Memory) Write(name string, v efi.Variable) error {
	return m.change(name, func() { m.Content[name] = efi.Variable{Attributes: v.Attributes, Data: bytes.Clone(v.Data)} })
}

// Delete deletes a variable.
func (m *Memory) Delete(name string) error {
	return m.change(name, func() { delete(m.Content, name) })
}

func (m *Memory) change(name string, do func()) error {
	if m.Change != nil {
		if err := m.Change(name); err != nil {
			return err
		}
	}
	if m.Content == nil {
		m.Content = map[string]efi.Variable{}
	}
	do()
	return nil
}

// List returns the names of all variables.
func (m *Memory) List() ([]string, error) { return slices.Sorted(maps.Keys(m.Content)), nil }
