package crash

import (
	"fmt"
	"strings"

	"github.com/fwu-ab/fwu-ab/bootctl/efi"
	"github.com/fwu-ab/fwu-ab/bootctl/efi/model"
	"github.com/fwu-ab/fwu-ab/bootctl/uboot"
	ubmodel "github.com/fwu-ab/fwu-ab/bootctl/uboot/model"
	"github.com/fwu-ab/fwu-ab/fwu"
)

const efiLoader = `\EFI\test\linux.efi`

// efiStories are all stories of the scheme that has no limits, on machines with UEFI firmware: one
// that adds the devices it finds to the end of its list, one that begins with them, and one that
// keeps its variables in memory and in a file.
func efiStories(all []story) []story {
	var out []story
	for _, st := range all {
		if st.dev.scheme == uboot.OneShot && st.dev.media == plain {
			out = append(out, story{"efi-" + st.name, st.dev.onEFI(false), st.play}, story{"efi-first-" + st.name, st.dev.onEFI(true), st.play},
				story{"efi-stored-" + st.name, st.dev.onStored(), st.play})
		}
	}
	return out
}

// flash is where the variables lie: on the medium that has the environment of U-Boot otherwise.
func (m *machine) flash() model.Flash {
	return model.Flash{Medium: m.media.Medium(mediumEnv), Size: envSize}
}

// stored is firmware with variables in memory. The memory is a medium whose content no boot finds:
// so a service that is killed between any two accesses leaves there the variables that it set.
func (m *machine) stored(running bool) model.Stored {
	memory := model.Flash{Medium: m.media.Medium(mediumMemory), Size: envSize}
	return model.Stored{Memory: memory, File: model.File{Flash: m.flash()}, Running: running}
}

// variables are those that the firmware has, or shows to the system that runs.
func (m *machine) variables(running bool) efi.Variables {
	if m.dev.stored {
		return m.stored(running)
	}
	return m.flash()
}

func loaderSlot(bank int) [16]byte { return [16]byte{0xb0, 0x07, 15: byte(bank + 1)} }

func (m *machine) efiSelector() *efi.Selector {
	c := efi.Config{Variables: model.Running{Variables: m.variables(true), Current: m.current}, File: efiLoader,
		Store: func(string) (efi.Store, error) { return model.File{Flash: m.flash()}, nil }}
	for i := range c.Banks {
		p := efi.Partition{Number: uint32(i + 2), UUID: loaderSlot(i), Start: uint64(2048 * (i + 1)), Size: 2048}
		c.Banks[i] = efi.Bank{Partition: p, CommandLine: "fwu.bank=" + string(fwu.BankOf(i))}
	}
	s, err := efi.New(c)
	if err != nil {
		panic(err)
	}
	return s
}

// firmware starts a bank. A removable device is there at every other boot.
func (m *machine) firmware() (ubmodel.Outcome, error) {
	if m.dev.stored {
		if err := m.stored(false).Start(); err != nil {
			return ubmodel.Outcome{}, err
		}
	}
	f := model.Firmware{Variables: m.variables(false), Loaders: [2][16]byte{loaderSlot(0), loaderSlot(1)}, File: efiLoader, Plugged: m.boots%2 == 0, First: m.dev.first}
	out, err := f.Boot(m.startable)
	m.current = out.Current
	if err == nil && out.Bank != fwu.NoBank {
		err = m.told(out)
	}
	return ubmodel.Outcome{Bank: out.Bank, CommandLine: out.CommandLine}, err
}

// told checks that the started system is told what it is.
func (m *machine) told(out model.Outcome) error {
	if out.CommandLine != "fwu.bank="+string(out.Bank) {
		return fmt.Errorf("bank %s was started with the command line %q", out.Bank, out.CommandLine)
	}
	var says string
	var bank fwu.Bank
	m.media.Quiet(func() {
		e := m.efiSelector().Booted()
		says, bank = e.Text, e.Bank
	})
	if bank != out.Bank && (bank != fwu.NoBank || len(out.Current) > 0 && !strings.Contains(says, "EIO")) {
		return fmt.Errorf("bank %s was started, and BootCurrent says %q (%s)", out.Bank, bank, says)
	}
	return nil
}
