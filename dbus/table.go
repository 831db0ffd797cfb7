package dbus

import (
	"context"

	godbus "github.com/godbus/dbus/v5"

	"github.com/fwu-ab/fwu-ab/fwu"
)

// The actions that an Authorize is asked about.
const (
	ActionQuery   = "query"
	ActionPrepare = "prepare"
	ActionCancel  = "cancel"
	ActionInstall = "install"
	ActionAccept  = "accept"
	ActionReject  = "reject"
	ActionClean   = "clean"
	ActionReboot  = "reboot"
	ActionRepair  = "repair"
)

// iface is an interface as data: what the dispatcher knows of the contract, and what each call does.
type iface struct {
	name       string
	methods    []method
	properties []property
	signals    []signal
}

type method struct {
	name, in, out string
	action        string // empty: for everybody, as the bus lets them in
	ordered       bool   // waits for the calls before it on the same object
	bulk          bool   // ends with its caller
	holds         bool   // makes its caller the one that prepares the component
	call          func(ctx context.Context, r *request) ([]any, error)
}

type property struct {
	name, signature string
	constant        bool
	get             func(v view) any
}

type signal struct{ name, signature string }

// view is what properties are read from: a snapshot.
type view struct {
	options *Options
	system  fwu.SystemInfo
	comp    fwu.ComponentInfo
	info    fwu.Info
}

// reason is the (ss) of the contract.
type reason struct{ Code, Text string }

func reasonOf(code fwu.Reason, text string) reason { return reason{clean(string(code)), clean(text)} }

type progress struct{ Done, Total uint64 }

type apiVersion struct{ Major, Minor uint32 }

type listed struct {
	ID   byte
	Name string
	Path godbus.ObjectPath
}

func managerInterface() iface {
	return iface{
		name: ManagerInterface,
		methods: []method{
			{name: "ListComponents", out: "a(yso)", action: ActionQuery, call: listComponents},
			{name: "Install", in: "a{sv}", out: "i", action: ActionInstall, ordered: true, call: install},
			{name: "Accept", in: "a{sv}", out: "i", action: ActionAccept, ordered: true, call: accept},
			{name: "Reject", in: "ia{sv}", out: "i", action: ActionReject, ordered: true, call: reject},
			{name: "RequestReboot", in: "a{sv}", action: ActionReboot, ordered: true, call: requestReboot},
			{name: "Repair", in: "sa{sv}", action: ActionRepair, ordered: true, call: repair},
		},
		properties: []property{
			{"ApiVersion", "(uu)", true, func(view) any { return apiVersion{fwu.APIMajor, fwu.APIMinor} }},
			{"ServiceVersion", "s", true, func(v view) any { return clean(v.options.Version) }},
			{"MaxWriteSize", "u", true, func(view) any { return uint32(fwu.MaxWriteSize) }},
			{"WriteAlignment", "u", true, func(view) any { return uint32(fwu.WriteAlignment) }},
			{"Selector", "s", true, func(v view) any { return clean(v.system.Selector) }},
			{"BootedBank", "s", false, func(v view) any { return clean(string(v.system.Booted)) }},
			{"DefaultBank", "s", false, func(v view) any { return clean(string(v.system.Default)) }},
			{"TrialBank", "s", false, func(v view) any { return clean(string(v.system.Trial)) }},
			{"Degraded", "as", false, func(v view) any { return degraded(v.system) }},
			{"Limits", "as", true, func(v view) any { return append([]string{}, v.system.Limits...) }},
		},
	}
}

func degraded(s fwu.SystemInfo) []string {
	codes := make([]string, 0, len(s.Degraded))
	for _, r := range s.Degraded {
		codes = append(codes, clean(string(r)))
	}
	return codes
}

func componentInterface() iface {
	return iface{
		name: ComponentInterface,
		methods: []method{
			{name: "Query", out: "yi(yyqu)tuua{sv}", action: ActionQuery, call: query},
			{name: "Check", in: "aya{sv}", action: ActionPrepare, call: check},
			{name: "Start", holds: true, in: "aya{sv}", action: ActionPrepare, ordered: true, call: start},
			{name: "Write", holds: true, in: "tay", action: ActionPrepare, ordered: true, call: write},
			{name: "WriteFile", holds: true, in: "thta{sv}", out: "t", action: ActionPrepare, ordered: true, bulk: true, call: writeFile},
			{name: "Finish", holds: true, in: "a{sv}", action: ActionPrepare, ordered: true, call: finish},
			{name: "Cancel", action: ActionCancel, call: cancel},
			{name: "Clean", holds: true, in: "a{sv}", action: ActionClean, ordered: true, call: cleanUp},
		},
		properties: []property{
			{"Id", "y", true, func(v view) any { return byte(v.comp.ID) }},
			{"Name", "s", true, func(v view) any { return clean(v.comp.Name) }},
			{"ManifestMode", "s", true, func(v view) any { return clean(string(v.comp.Manifest)) }},
			{"Activation", "s", true, func(v view) any { return v.comp.Activation() }},
			{"State", "y", false, func(v view) any { return byte(v.info.State) }},
			{"Error", "i", false, func(v view) any { return int32(v.info.Error) }},
			{"Reason", "(ss)", false, func(v view) any { return reasonOf(v.info.Impl.Reason, v.info.Impl.Text) }},
			{"ReadOnly", "(ss)", false, func(v view) any { return reasonOf(v.info.Impl.ReadOnly, v.info.Impl.ReadOnlyText) }},
			{"Version", "(yyqu)", false, func(v view) any { return v.info.Version }},
			{"MaxSize", "t", false, func(v view) any { return uint64(v.info.MaxSize) }},
			{"Flags", "u", false, func(v view) any { return v.info.Flags }},
			{"Location", "u", false, func(v view) any { return v.info.Location }},
			{"Written", "t", false, func(v view) any { return uint64(v.info.Impl.Written) }},
			{"ManifestDigest", "s", false, func(v view) any { return clean(v.info.Impl.ManifestDigest) }},
			{"Second", "a{sv}", false, func(v view) any { return secondOf(v.info.Impl.Second) }},
			{"Operation", "s", false, func(v view) any { return clean(v.info.Impl.Operation) }},
			{"Progress", "(tt)", false, func(v view) any { return progress{uint64(v.info.Impl.Done), uint64(v.info.Impl.Total)} }},
		},
		signals: []signal{{"OperationFinished", "si(ss)"}},
	}
}

func objectManagerInterface() iface {
	return iface{
		name:    "org.freedesktop.DBus.ObjectManager",
		methods: []method{{name: "GetManagedObjects", out: "a{oa{sa{sv}}}", action: ActionQuery, call: getManagedObjects}},
		// Never sent: components neither come nor go while the service runs.
		signals: []signal{{"InterfacesAdded", "oa{sa{sv}}"}, {"InterfacesRemoved", "oas"}},
	}
}

func introspectableInterface() iface {
	return iface{
		name:    "org.freedesktop.DBus.Introspectable",
		methods: []method{{name: "Introspect", out: "s", call: introspect}},
	}
}

func peerInterface() iface {
	return iface{
		name: "org.freedesktop.DBus.Peer",
		methods: []method{
			{name: "Ping", call: func(context.Context, *request) ([]any, error) { return nil, nil }},
			{name: "GetMachineId", out: "s", call: getMachineID},
		},
	}
}

func propertiesInterface() iface {
	return iface{
		name: propertiesName,
		methods: []method{
			{name: "Get", in: "ss", out: "v", action: ActionQuery, call: getProperty},
			{name: "GetAll", in: "s", out: "a{sv}", action: ActionQuery, call: getAllProperties},
			{name: "Set", in: "ssv", action: ActionQuery, call: setProperty},
		},
		signals: []signal{{"PropertiesChanged", "sa{sv}as"}},
	}
}

// object is what can be called: the manager, a component, or a folder on the way to them, which can be introspected and no more.
type object struct {
	path       godbus.ObjectPath
	interfaces []iface
	comp       fwu.ComponentInfo
	component  bool
	children   []string
}

func (o *object) find(ifaceName, member string) (method, error) {
	known := ifaceName == ""
	for _, i := range o.interfaces {
		if ifaceName != "" && i.name != ifaceName {
			continue
		}
		known = true
		for _, m := range i.methods {
			if m.name == member {
				return m, nil
			}
		}
	}
	if !known {
		return method{}, refuse("UnknownInterface", "object %s has no interface %s", o.path, ifaceName)
	}
	return method{}, refuse("UnknownMethod", "object %s has no method %s on interface %q", o.path, member, ifaceName)
}
