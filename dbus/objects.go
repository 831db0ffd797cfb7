package dbus

import (
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

const doctype = `<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
`

// describe is the introspection data of one object (D-Bus Specification, "Introspection Data
// Format"): of its interfaces what the contract says, without its comments: whoever wants them has
// the file.
func (o *object) describe() string {
	var text strings.Builder
	text.WriteString(doctype + "<node>\n")
	for _, i := range o.interfaces {
		text.WriteString(described(i.name))
	}
	for _, name := range o.children {
		fmt.Fprintf(&text, "  <node name=%q/>\n", name)
	}
	text.WriteString("</node>\n")
	return text.String()
}

// described is an interface as it stands in the contract or among those of the standard: both are ours, and are written such that it can be cut out.
func described(name string) string {
	const end = "</interface>\n"
	for _, text := range []string{introspection, standardInterfaces} {
		if _, rest, ok := strings.Cut(text, fmt.Sprintf("<interface name=%q>\n", name)); ok {
			body, _, _ := strings.Cut(rest, end)
			return fmt.Sprintf("  <interface name=%q>\n%s%s", name, body, end)
		}
	}
	return ""
}
