package dbus

import (
	"encoding/xml"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/fwu-ab/fwu-ab/fwu"
)

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

// contractInterfaces is every interface of the contract and of the standard, by name.
func contractInterfaces(t *testing.T) map[string]xmlInterface {
	t.Helper()
	all := map[string]xmlInterface{}
	for _, text := range []string{contract, standardInterfaces} {
		var root xmlNode
		if err := xml.Unmarshal([]byte(text), &root); err != nil {
			t.Fatal(err)
		}
		for _, node := range append(root.Nodes, root) {
			for _, i := range node.Interfaces {
				all[i.Name] = i
			}
		}
	}
	return all
}

// shape is an interface reduced to what the table knows.
type shape struct {
	Methods    map[string][2]string
	Properties map[string]propertyShape
	Signals    map[string]string
}

type propertyShape struct {
	Type, Access string
	Annotations  map[string]string
}

func shapeOfTable(i iface) shape {
	s := shape{map[string][2]string{}, map[string]propertyShape{}, map[string]string{}}
	for _, m := range i.methods {
		s.Methods[m.name] = [2]string{m.in, m.out}
	}
	for _, p := range i.properties {
		a := map[string]string{}
		if p.constant {
			a["org.freedesktop.DBus.Property.EmitsChangedSignal"] = "const"
		}
		s.Properties[p.name] = propertyShape{p.signature, "read", a}
	}
	for _, g := range i.signals {
		s.Signals[g.name] = g.signature
	}
	return s
}

func shapeOfXML(i xmlInterface) shape {
	s := shape{map[string][2]string{}, map[string]propertyShape{}, map[string]string{}}
	for _, m := range i.Methods {
		var inOut [2]string
		for _, a := range m.Args {
			n := 0
			if a.Direction == "out" {
				n = 1
			}
			inOut[n] += a.Type
		}
		s.Methods[m.Name] = inOut
	}
	for _, p := range i.Properties {
		a := map[string]string{}
		for _, one := range p.Annotations {
			a[one.Name] = one.Value
		}
		s.Properties[p.Name] = propertyShape{p.Type, p.Access, a}
	}
	for _, g := range i.Signals {
		for _, a := range g.Args {
			s.Signals[g.Name] += a.Type
		}
	}
	return s
}

func allInterfaces() []iface {
	return []iface{managerInterface(), componentInterface(), objectManagerInterface(), introspectableInterface(), peerInterface(), propertiesInterface()}
}

func TestTableIsTheContract(t *testing.T) {
	want := contractInterfaces(t)
	for _, i := range allInterfaces() {
		x, ok := want[i.name]
		if !ok {
			t.Errorf("%s is not in the contract", i.name)
			continue
		}
		if len(x.Annotations) > 0 {
			t.Errorf("%s has annotations, of which the table knows nothing", i.name)
		}
		if diff := cmp.Diff(shapeOfXML(x), shapeOfTable(i)); diff != "" {
			t.Errorf("%s (-contract +table):\n%s", i.name, diff)
		}
		delete(want, i.name)
	}
	for name := range want {
		t.Errorf("%s is in the contract and not in the table", name)
	}
}

func TestRunningServiceIntrospectsAsTheContract(t *testing.T) {
	s := serve(t, Options{})
	c := s.raw(t)
	all := contractInterfaces(t)
	standard := []string{"org.freedesktop.DBus.Introspectable", "org.freedesktop.DBus.Peer"}
	manager := append([]string{ManagerInterface, "org.freedesktop.DBus.ObjectManager", propertiesName}, standard...)
	component := append([]string{ComponentInterface, propertiesName}, standard...)
	tests := []struct {
		path       godbus.ObjectPath
		interfaces []string
		children   []string
	}{
		{"/", standard, []string{"org"}},
		{"/org", standard, []string{"fwuab"}},
		{"/org/fwuab", standard, []string{"FirmwareUpdate1"}},
		{Path, manager, []string{"component"}},
		{componentFolder, standard, []string{"0", "7"}},
		{componentFolder + "/0", component, nil},
		{componentFolder + "/7", component, nil},
	}
	for _, test := range tests {
		t.Run(string(test.path), func(t *testing.T) {
			var text string
			if err := c.Object(Name, test.path).Call("org.freedesktop.DBus.Introspectable.Introspect", 0).Store(&text); err != nil {
				t.Fatal(err)
			}
			var node xmlNode
			if err := xml.Unmarshal([]byte(text), &node); err != nil {
				t.Fatal(err)
			}
			var children []string
			for _, n := range node.Nodes {
				children = append(children, n.Name)
			}
			if diff := cmp.Diff(test.children, children); diff != "" {
				t.Errorf("children:\n%s", diff)
			}
			var names []string
			for _, i := range node.Interfaces {
				names = append(names, i.Name)
				if diff := cmp.Diff(all[i.Name], i); diff != "" {
					t.Errorf("%s (-contract +service):\n%s", i.Name, diff)
				}
			}
			if diff := cmp.Diff(test.interfaces, names); diff != "" {
				t.Errorf("interfaces:\n%s", diff)
			}
		})
	}
}

// Every method answers with the types of the contract; godbus would convert what it likes, so the signature on the wire is looked at.
func TestAnswersHaveTheTypesOfTheContract(t *testing.T) {
	s := serve(t, Options{})
	var mu sync.Mutex
	signature := ""
	c, err := godbus.Connect(s.address, godbus.WithIncomingInterceptor(func(m *godbus.Message) {
		if m.Type == godbus.TypeMethodReply {
			mu.Lock()
			defer mu.Unlock()
			sig, _ := m.Headers[godbus.FieldSignature].Value().(godbus.Signature)
			signature = sig.String()
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	image, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	fd := godbus.UnixFD(image.Fd())
	arguments := map[string][]any{
		"": {}, "a{sv}": {options()}, "ia{sv}": {int32(0), options()}, "aya{sv}": {[]byte{1}, options()}, "tay": {uint64(0), []byte{1}},
		"thta{sv}": {uint64(0), fd, uint64(1), options()},
	}
	special := map[string][]any{"Repair": {"slots", options()}, "Get": {ManagerInterface, "ApiVersion"}, "GetAll": {ManagerInterface}}
	for _, o := range newTree(s.Components()) {
		for _, i := range o.interfaces {
			for _, m := range i.methods {
				args, ok := special[m.name]
				switch {
				case m.name == "Set":
					continue
				case m.name == "GetMachineId":
					if _, err := os.Stat("/etc/machine-id"); err != nil {
						continue
					}
				case ok && o.component:
					args = []any{ComponentInterface, "State"}[:len(args)]
				case !ok:
					if args, ok = arguments[m.in]; !ok {
						t.Fatalf("no arguments for %s", m.name)
					}
				}
				if err := c.Object(Name, o.path).Call(i.name+"."+m.name, 0, args...).Err; err != nil {
					t.Errorf("%s: %v", m.name, err)
					continue
				}
				mu.Lock()
				if signature != m.out {
					t.Errorf("%s answered %q, want %q", m.name, signature, m.out)
				}
				mu.Unlock()
			}
			for _, p := range i.properties {
				var v godbus.Variant
				if err := c.Object(Name, o.path).Call(propertiesName+".Get", 0, i.name, p.name).Store(&v); err != nil {
					t.Errorf("%s: %v", p.name, err)
				} else if got := v.Signature().String(); got != p.signature {
					t.Errorf("property %s is %q, want %q", p.name, got, p.signature)
				}
			}
		}
	}
}

func TestProperties(t *testing.T) {
	s := serve(t, Options{Version: "9.9"})
	c := s.raw(t)
	s.mu.Lock()
	s.system = fwu.SystemInfo{Selector: "efi", Booted: "b", Default: "a", Trial: "b", Degraded: []fwu.Reason{"record-lost"}, Limits: []string{fwu.LimitSingleCopy}}
	s.mu.Unlock()
	get := func(path godbus.ObjectPath, i, name string) (any, error) {
		var v godbus.Variant
		err := c.Object(Name, path).Call(propertiesName+".Get", 0, i, name).Store(&v)
		return v.Value(), err
	}
	want := map[string]any{
		"ApiVersion": []any{uint32(1), uint32(0)}, "ServiceVersion": "9.9", "MaxWriteSize": uint32(1 << 20), "WriteAlignment": uint32(4096),
		"Selector": "efi", "BootedBank": "b", "DefaultBank": "a", "TrialBank": "b", "Degraded": []string{"record-lost"},
		"Limits": []string{"single-copy"},
	}
	var all map[string]godbus.Variant
	if err := c.Object(Name, Path).Call(propertiesName+".GetAll", 0, ManagerInterface).Store(&all); err != nil {
		t.Fatal(err)
	}
	if len(all) != len(want) {
		t.Errorf("GetAll has %d properties", len(all))
	}
	for name, value := range want {
		got, err := get(Path, ManagerInterface, name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(value, got); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
		if diff := cmp.Diff(value, all[name].Value()); diff != "" {
			t.Errorf("%s in GetAll:\n%s", name, diff)
		}
	}
	refusals := []struct{ name, i, property, want string }{
		{"no such property", ManagerInterface, "Nothing", "UnknownProperty"},
		{"no such interface", "a.b", "Degraded", "UnknownInterface"},
		{"property of another interface", propertiesName, "Degraded", "UnknownProperty"},
	}
	for _, r := range refusals {
		if _, err := get(Path, r.i, r.property); errorName(err) != busErrorPrefix+r.want {
			t.Errorf("%s: %v", r.name, err)
		}
		if err := c.Object(Name, Path).Call(propertiesName+".Set", 0, r.i, r.property, godbus.MakeVariant(1)).Err; errorName(err) != busErrorPrefix+r.want {
			t.Errorf("set, %s: %v", r.name, err)
		}
	}
	if err := c.Object(Name, Path).Call(propertiesName+".Set", 0, ManagerInterface, "Selector", godbus.MakeVariant("x")).Err; errorName(err) != busErrorPrefix+"PropertyReadOnly" {
		t.Errorf("set: %v", err)
	}
	if v, err := get(Path, "", "Selector"); v != "efi" || err != nil {
		t.Errorf("get without an interface: %v, %v", v, err)
	}
}

func TestGetManagedObjects(t *testing.T) {
	s := serve(t, Options{})
	var all map[godbus.ObjectPath]map[string]map[string]godbus.Variant
	if err := s.raw(t).Object(Name, Path).Call("org.freedesktop.DBus.ObjectManager.GetManagedObjects", 0).Store(&all); err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 {
		t.Errorf("%d objects", len(all))
	}
	for path, name := range map[godbus.ObjectPath]string{componentFolder + "/0": "rootfs", componentFolder + "/7": "app"} {
		p := all[path][ComponentInterface]
		if p["Name"].Value() != name || len(p) != len(componentInterface().properties) {
			t.Errorf("%s: %v", path, p)
		}
	}
}

func errorName(err error) string {
	if e, ok := err.(godbus.Error); ok {
		return e.Name
	}
	return ""
}

func busctl(t *testing.T, address string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("busctl"); err != nil {
		if os.Getenv("FWUAB_TEST_ALL") == "" {
			t.Skip("needs busctl")
		}
		t.Fatal(err)
	}
	out, err := exec.Command("busctl", append([]string{"--address=" + address}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("busctl %v: %v: %s", args, err, out)
	}
	return string(out)
}

func TestBusctlUnderstandsTheService(t *testing.T) {
	s := serve(t, Options{})
	tree := busctl(t, s.address, "tree", "--list", Name)
	for _, path := range []string{Path, componentFolder + "/0", componentFolder + "/7"} {
		if !strings.Contains(tree, path+"\n") {
			t.Errorf("tree lacks %s:\n%s", path, tree)
		}
	}
	for _, o := range newTree(s.Components()) {
		if len(o.interfaces) == 2 {
			continue
		}
		text := busctl(t, s.address, "introspect", Name, string(o.path))
		for _, i := range o.interfaces {
			for _, m := range i.methods {
				if !hasLine(text, "."+m.name, "method", dash(m.in), dash(m.out)) {
					t.Errorf("%s: no method %s in\n%s", o.path, m.name, text)
				}
			}
			for _, p := range i.properties {
				flag := "emits-change"
				if p.constant {
					flag = "const"
				}
				if !hasLine(text, "."+p.name, "property", p.signature) || !strings.Contains(lineOf(text, "."+p.name+" "), flag) {
					t.Errorf("%s: no property %s in\n%s", o.path, p.name, text)
				}
			}
			for _, g := range i.signals {
				if !hasLine(text, "."+g.name, "signal", g.signature) {
					t.Errorf("%s: no signal %s in\n%s", o.path, g.name, text)
				}
			}
		}
	}
	want := "yi(yyqu)tuua{sv} 0 0 1 2 3 4 8589934592 0 0"
	if got := busctl(t, s.address, "call", Name, componentFolder+"/0", ComponentInterface, "Query"); !strings.HasPrefix(got, want) {
		t.Errorf("query answers %s", got)
	}
	if got := busctl(t, s.address, "call", Name, Path, ManagerInterface, "Install", "a{sv}", "0"); got != "i 1\n" {
		t.Errorf("install answers %s", got)
	}
	if got := busctl(t, s.address, "get-property", Name, Path, ManagerInterface, "ApiVersion"); got != "(uu) 1 0\n" {
		t.Errorf("property is %s", got)
	}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func lineOf(text, start string) string {
	for _, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, start) {
			return line
		}
	}
	return ""
}

func hasLine(text string, fields ...string) bool {
	for _, line := range strings.Split(text, "\n") {
		f := strings.Fields(line)
		if len(f) >= len(fields) && cmp.Equal(f[:len(fields)], fields) {
			return true
		}
	}
	return false
}

// The files that are installed name what the table has: no method is forgotten on the bus, no action in polkit.
func TestPolicyFiles(t *testing.T) {
	var bus struct {
		Policies []struct {
			Context string `xml:"context,attr"`
			Allows  []struct {
				Destination string `xml:"send_destination,attr"`
				Type        string `xml:"send_type,attr"`
				Interface   string `xml:"send_interface,attr"`
				Member      string `xml:"send_member,attr"`
			} `xml:"allow"`
		} `xml:"policy"`
	}
	var polkit struct {
		Actions []struct {
			ID string `xml:"id,attr"`
		} `xml:"action"`
	}
	for file, into := range map[string]any{"dbus-1/system.d/" + Name + ".conf": &bus, "polkit-1/actions/" + Name + ".policy": &polkit} {
		text, err := os.ReadFile("../share/" + file)
		if err != nil {
			t.Fatal(err)
		}
		if err := xml.Unmarshal(text, into); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	wantBus, wantPolkit := map[string]int{}, map[string]int{}
	for _, i := range []iface{managerInterface(), componentInterface(), objectManagerInterface(), propertiesInterface(), introspectableInterface(), peerInterface()} {
		for _, m := range i.methods {
			switch {
			case i.name == "org.freedesktop.DBus.Peer":
				wantBus[i.name+"."] = 1
			case m.name != "Set": // there is nothing to set
				wantBus[i.name+"."+m.name] = 1
			}
			if m.action != "" && m.action != ActionQuery {
				wantPolkit[Name+"."+m.action] = 1
			}
		}
	}
	gotBus, gotPolkit := map[string]int{}, map[string]int{}
	for _, p := range bus.Policies {
		for _, a := range p.Allows {
			if p.Context != "default" {
				continue
			}
			if a.Destination != Name || a.Type != "method_call" {
				t.Errorf("%s.%s: to %q, type %q", a.Interface, a.Member, a.Destination, a.Type)
			}
			gotBus[a.Interface+"."+a.Member]++
		}
	}
	for _, a := range polkit.Actions {
		gotPolkit[a.ID]++
	}
	if diff := cmp.Diff(wantBus, gotBus); diff != "" {
		t.Errorf("bus policy (-table +file):\n%s", diff)
	}
	if diff := cmp.Diff(wantPolkit, gotPolkit); diff != "" {
		t.Errorf("polkit's actions (-table +file):\n%s", diff)
	}
}
