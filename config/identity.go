package config

import "github.com/fwu-ab/fwu-ab/suit"

// identity is a vendor and a class as they stand in a table; each is either an identifier or a name to make one from, or not set.
type identity struct {
	vendor, class identifier
}

type identifier struct {
	id   suit.UUID
	name string
	at   Pos
	set  bool
}

// identity reads vendor and class. Where noting is false, the report has only what was made of them.
func (s *scope) identity(noting bool) identity {
	return identity{s.identifier("vendor", noting), s.identifier("class", noting)}
}

func (s *scope) identifier(key string, noting bool) identifier {
	id, at := s.text(key)
	name, nameAt := s.text(key + "-name")
	switch {
	case id != "" && name != "":
		s.fail(at, "%s%s is set, and so is %s-name at %s: want one of them", s.path, key, key, nameAt)
		return identifier{at: at, set: true}
	case name != "":
		if noting {
			s.note(s.path+key+"-name", name, nameAt)
		}
		return identifier{name: name, at: nameAt, set: true}
	case id == "":
		return identifier{}
	}
	u, err := suit.ParseUUID(id)
	if err != nil {
		s.fail(at, "%s%s: %v", s.path, key, err)
	} else if noting {
		s.note(s.path+key, u.String(), at)
	}
	return identifier{id: u, at: at, set: true}
}

// device makes the identifiers, with those of the whole device where the component has none of its own.
func (i identity) device(whole identity) (suit.Device, identity) {
	if !i.vendor.set {
		i.vendor = whole.vendor
	}
	if !i.class.set {
		i.class = whole.class
	}
	d := suit.Device{Vendor: i.vendor.id, Class: i.class.id, VendorName: i.vendor.name, ClassName: i.class.name}
	if i.vendor.name != "" {
		d.Vendor = suit.VendorID(i.vendor.name)
	}
	if i.class.name != "" {
		d.Class = suit.ClassID(d.Vendor, i.class.name)
	}
	return d, i
}
