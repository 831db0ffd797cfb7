package dbus

import (
	"encoding/xml"
	"fmt"
	"sort"
	"strconv"
	"strings"

	godbus "github.com/godbus/dbus/v5"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// tree is every object there is, by path.
type tree map[string]*object

func newTree(components []fwu.ComponentInfo) tree {
	t := tree{}
	everywhere := []iface{introspectableInterface(), peerInterface()}
	for path := componentFolder; ; path = parent(path) {
		t[path] = &object{path: godbus.ObjectPath(path), interfaces: everywhere}
		if path == "/" {
			break
		}
	}
	t[Path].interfaces = append([]iface{managerInterface(), objectManagerInterface(), propertiesInterface()}, everywhere...)
	for _, c := range components {
		path := componentPath(c.ID)
		t[string(path)] = &object{
			path: path, comp: c, component: true,
			interfaces: append([]iface{componentInterface(), propertiesInterface()}, everywhere...),
		}
	}
	for path := range t {
		if path != "/" {
			up := t[parent(path)]
			up.children = append(up.children, path[strings.LastIndexByte(path, '/')+1:])
			sort.Strings(up.children)
		}
	}
	return t
}

func parent(path string) string { return path[:max(1, strings.LastIndexByte(path, '/'))] }

func componentPath(id fwu.ID) godbus.ObjectPath {
	return godbus.ObjectPath(componentFolder + "/" + strconv.Itoa(int(id)))
}

func (t tree) find(path string) (*object, error) {
	if o := t[path]; o != nil {
		return o, nil
	}
	if rest, ok := strings.CutPrefix(path, componentFolder+"/"); ok {
		return nil, &fwu.Error{Status: fwu.DoesNotExist, Reason: fwu.ReasonNoSuch, Text: fmt.Sprintf("no component %s is configured", rest)}
	}
	return nil, refuse("UnknownObject", "there is no object %s", path)
}

// The parts of introspection data (D-Bus Specification, "Introspection Data Format").
type xmlNode struct {
	XMLName    xml.Name       `xml:"node"`
	Name       string         `xml:"name,attr,omitempty"`
	Interfaces []xmlInterface `xml:"interface"`
	Nodes      []xmlNode      `xml:"node"`
}

type xmlInterface struct {
	Name        string          `xml:"name,attr"`
	Methods     []xmlMember     `xml:"method"`
	Signals     []xmlMember     `xml:"signal"`
	Properties  []xmlProperty   `xml:"property"`
	Annotations []xmlAnnotation `xml:"annotation"`
}

type xmlMember struct {
	Name        string          `xml:"name,attr"`
	Args        []xmlArg        `xml:"arg"`
	Annotations []xmlAnnotation `xml:"annotation"`
}

type xmlArg struct {
	Name      string `xml:"name,attr,omitempty"`
	Type      string `xml:"type,attr"`
	Direction string `xml:"direction,attr,omitempty"`
}

type xmlProperty struct {
	Name        string          `xml:"name,attr"`
	Type        string          `xml:"type,attr"`
	Access      string          `xml:"access,attr"`
	Annotations []xmlAnnotation `xml:"annotation"`
}

type xmlAnnotation struct {
	Name  string `xml:"name,attr"`
	Value string `xml:"value,attr"`
}

const doctype = `<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
`

// described is every interface of the contract and of the standard, by name.
func described() (map[string]xmlInterface, error) {
	all := map[string]xmlInterface{}
	for _, text := range []string{contract, standardInterfaces} {
		var root xmlNode
		if err := xml.Unmarshal([]byte(text), &root); err != nil {
			return nil, fmt.Errorf("read the contract: %w", err)
		}
		for _, node := range append(root.Nodes, root) {
			for _, i := range node.Interfaces {
				all[i.Name] = i
			}
		}
	}
	return all, nil
}

// describe is the introspection data of one object.
func (o *object) describe() (string, error) {
	all, err := described()
	if err != nil {
		return "", err
	}
	var node xmlNode
	for _, i := range o.interfaces {
		node.Interfaces = append(node.Interfaces, all[i.name])
	}
	for _, name := range o.children {
		node.Nodes = append(node.Nodes, xmlNode{Name: name})
	}
	text, err := xml.MarshalIndent(node, "", "  ")
	if err != nil {
		return "", fmt.Errorf("describe %s: %w", o.path, err)
	}
	return doctype + string(text) + "\n", nil
}
