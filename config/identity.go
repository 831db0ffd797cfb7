package config

import (
	"crypto/sha1"

	"github.com/fwu-ab/fwu-ab/suit"
)

// namespaceDNS is the namespace of domain names (RFC 9562, section 6.6).
func namespaceDNS() suit.UUID {
	return suit.UUID{0x6b, 0xa7, 0xb8, 0x10, 0x9d, 0xad, 0x11, 0xd1, 0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8}
}

// VendorID is the vendor identifier made from a domain name (draft-ietf-suit-manifest, "Constructing UUIDs").
func VendorID(domain string) suit.UUID { return uuid5(namespaceDNS(), domain) }

// ClassID is the class identifier made from what tells the vendor's devices apart (as VendorID).
func ClassID(vendor suit.UUID, name string) suit.UUID { return uuid5(vendor, name) }

// uuid5 is a UUID of version 5 (RFC 9562, section 5.5). SHA-1 names here, it does not protect.
func uuid5(namespace suit.UUID, name string) suit.UUID {
	h := sha1.New()
	h.Write(namespace[:])
	h.Write([]byte(name))
	var u suit.UUID
	copy(u[:], h.Sum(nil))
	u[6] = u[6]&0x0f | 0x50
	u[8] = u[8]&0x3f | 0x80
	return u
}

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
	d := suit.Device{Vendor: i.vendor.id, Class: i.class.id}
	if i.vendor.name != "" {
		d.Vendor = VendorID(i.vendor.name)
	}
	if i.class.name != "" {
		d.Class = ClassID(d.Vendor, i.class.name)
	}
	return d, i
}
