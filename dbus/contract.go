// Package dbus is the D-Bus interface org.fwuab.FirmwareUpdate1: the service, and the client of it.
//
// The contract is org.fwuab.FirmwareUpdate1.xml in this folder (Contract). Server serves a Firmware, which is the update service; Dial gives
// a Client, which is a Firmware again. So a program drives an update in process and over the bus with the same calls and gets the same errors.
//
// The service believes nothing that comes from the bus. Method calls never reach the export layer of the D-Bus library, which converts
// arguments instead of checking them and loses descriptors that nobody asked for: a transport of our own takes them from the socket, in the
// order in which they arrive, with the descriptors that came with each, and every descriptor is closed whatever becomes of its call.
// A call's signature is compared exactly, sizes are bounded before memory is taken, and what a caller may leave pending is limited.
package dbus

import _ "embed" // for the contract

// The names of the contract.
const (
	Name               = "org.fwuab.FirmwareUpdate1"
	Path               = "/org/fwuab/FirmwareUpdate1"
	ManagerInterface   = Name + ".Manager"
	ComponentInterface = Name + ".Component"
	errorPrefix        = Name + ".Error."
	componentFolder    = Path + "/component"
)

// The names of the bus and of the interfaces that it defines for everybody.
const (
	busName        = "org.freedesktop.DBus"
	busErrorPrefix = busName + ".Error."
	propertiesName = busName + ".Properties"
)

//go:embed org.fwuab.FirmwareUpdate1.xml
var contract string

// introspection is the contract without its comments, which the program need not carry.
//
//go:embed introspection.xml
var introspection string

// Contract is the interface as introspection data, the two kinds of objects as one tree.
func Contract() string { return contract }

// The interfaces that every object has (D-Bus Specification, "Standard Interfaces").
const standardInterfaces = `<node>
  <interface name="org.freedesktop.DBus.Introspectable">
    <method name="Introspect">
      <arg name="xml_data" type="s" direction="out"/>
    </method>
  </interface>
  <interface name="org.freedesktop.DBus.Peer">
    <method name="Ping"/>
    <method name="GetMachineId">
      <arg name="machine_uuid" type="s" direction="out"/>
    </method>
  </interface>
  <interface name="org.freedesktop.DBus.Properties">
    <method name="Get">
      <arg name="interface_name" type="s" direction="in"/>
      <arg name="property_name" type="s" direction="in"/>
      <arg name="value" type="v" direction="out"/>
    </method>
    <method name="GetAll">
      <arg name="interface_name" type="s" direction="in"/>
      <arg name="props" type="a{sv}" direction="out"/>
    </method>
    <method name="Set">
      <arg name="interface_name" type="s" direction="in"/>
      <arg name="property_name" type="s" direction="in"/>
      <arg name="value" type="v" direction="in"/>
    </method>
    <signal name="PropertiesChanged">
      <arg name="interface_name" type="s"/>
      <arg name="changed_properties" type="a{sv}"/>
      <arg name="invalidated_properties" type="as"/>
    </signal>
  </interface>
</node>`
