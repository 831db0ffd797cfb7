package crash

import (
	"github.com/fwu-ab/fwu-ab/bootctl/uboot"
	"github.com/fwu-ab/fwu-ab/fwu"
)

// Components of the devices that the stories are played on.
const (
	boot fwu.ID = 1 // what the bootloader loads
	root fwu.ID = 2 // has the release record
	app  fwu.ID = 9 // live
)

func bankDevice(trial, volatile bool, manifest fwu.ManifestMode) device {
	return device{trial: trial, scheme: uboot.OneShot, components: []component{
		{id: boot, name: "boot", volatile: volatile, manifest: fwu.Detached},
		{id: root, name: "root", volatile: volatile, manifest: manifest},
	}}
}

// packedDevice gets the image of root compressed.
func packedDevice() device {
	d := bankDevice(true, false, fwu.Bundled)
	d.components[1].compressed = true
	return d
}

func liveDevice(trial, volatile bool) device {
	d := bankDevice(true, false, fwu.Detached)
	d.components = append(d.components, component{id: app, name: "app", live: true, trial: trial, volatile: volatile, manifest: fwu.Detached})
	return d
}

// on is the device with the boot script of another scheme.
func (d device) on(scheme uboot.Scheme) device {
	d.scheme = scheme
	return d
}

// onMedia is the device whose slots lie on media of another kind.
func (d device) onMedia(k mediaKind) device {
	d.media = k
	return d
}

// onEFI is the device with UEFI firmware.
func (d device) onEFI(first bool) device {
	d.scheme, d.efi, d.first = "", true, first
	return d
}

// onStored is the device with UEFI firmware that keeps its variables in memory and in a file.
func (d device) onStored() device {
	d = d.onEFI(false)
	d.stored = true
	return d
}

// step is a call, or several.
type step func(*client) error

// story is something that a client does.
type story struct {
	name string
	dev  device
	play []step
}

// steps makes calls with arguments.
type steps struct{}

func (steps) update(build int, ids ...fwu.ID) step {
	return func(c *client) error { return c.update(build, ids...) }
}
func (steps) start(id fwu.ID, build int) step {
	return func(c *client) error { return c.start(id, build) }
}
func (steps) write(id fwu.ID, build int, from, to int64) step {
	return func(c *client) error { return c.write(id, build, from, to) }
}

// writeOn continues where the service says that it is durable, for n bytes.
func (steps) writeOn(id fwu.ID, build int, n int64) step {
	return func(c *client) error { return c.writeOn(id, build, n) }
}
func (steps) scatter(id fwu.ID, build int) step {
	return func(c *client) error { return c.scatter(id, build) }
}
func (steps) finish(id fwu.ID) step { return func(c *client) error { return c.finish(id) } }
func (steps) cancel(id fwu.ID) step { return func(c *client) error { return c.cancel(id) } }
func (steps) clean(id fwu.ID) step  { return func(c *client) error { return c.clean(id) } }

func stories() []story {
	var a steps
	install, reboot, restart := (*client).install, (*client).reboot, (*client).restart
	accept, reject := (*client).accept, (*client).reject
	out := []story{
		{"update", bankDevice(true, false, fwu.Detached), []step{a.update(1, boot, root), install, reboot, accept, a.clean(boot), a.clean(root)}},
		{"carry-over-of-boot", bankDevice(true, false, fwu.Detached), []step{a.update(alone, root), install, reboot, accept, a.clean(root)}},
		{"carry-over-of-root", bankDevice(true, false, fwu.Detached), []step{a.update(1, boot), install, reboot, accept, a.clean(boot)}},
		{"reject-staged", bankDevice(true, false, fwu.Detached), []step{a.update(1, boot, root), install, reject, a.clean(root), a.clean(boot)}},
		{"reject-trial", bankDevice(true, false, fwu.Detached), []step{a.update(1, boot, root), install, reboot, reject, reboot, a.clean(root), a.clean(boot)}},
		{"trial-lapses", bankDevice(true, false, fwu.Detached), []step{a.update(alone, root), install, reboot, reboot, a.clean(root)}},
		{"cancel", bankDevice(true, false, fwu.Bundled), []step{
			a.start(root, 1), a.write(root, 1, 0, 64<<10), a.cancel(root), a.clean(root),
			a.update(1, boot, root), a.cancel(boot), a.cancel(root), a.clean(boot), a.clean(root)}},
		{"resume", bankDevice(true, false, fwu.Bundled), []step{
			a.start(root, 1), a.write(root, 1, 0, 70_000), a.start(boot, 1), a.scatter(boot, 1), restart,
			a.writeOn(root, 1, 40_000), reboot, a.writeOn(root, 1, all), a.finish(root),
			a.writeOn(boot, 1, all), a.finish(boot), reboot, install, reboot, accept, a.clean(root), a.clean(boot)}},
		{"resume-compressed", packedDevice(), []step{
			a.start(root, 1), a.write(root, 1, 0, 70_000), restart, a.writeOn(root, 1, 40_000), reboot, a.writeOn(root, 1, all), a.finish(root),
			a.update(1, boot), install, reboot, accept, a.clean(root), a.clean(boot)}},
		{"scattered", bankDevice(true, false, fwu.Detached), []step{a.start(root, 1), a.scatter(root, 1), a.finish(root), a.update(1, boot), install, reboot, accept, a.clean(root), a.clean(boot)}},
		{"twice", bankDevice(true, false, fwu.Detached), []step{a.update(1, boot, root), install, reboot, accept, a.clean(boot), a.clean(root),
			a.update(2, boot, root), install, reboot, accept, a.clean(boot), a.clean(root)}},
		{"reject-second", bankDevice(true, false, fwu.Detached), []step{a.update(1, boot, root), install, reboot, accept, a.clean(boot), a.clean(root),
			a.update(2, root), a.update(2, boot), install, reboot, reject, reboot, a.clean(boot), a.clean(root)}},
		{"without-trial", bankDevice(false, false, fwu.Detached), []step{a.update(1, boot, root), install, reboot, a.clean(boot), a.clean(root)}},
		{"volatile", bankDevice(true, true, fwu.Detached), []step{a.start(root, 1), a.write(root, 1, 0, 64<<10), restart, a.writeOn(root, 1, all), a.finish(root), a.update(1, boot),
			restart, install, reboot, accept, reboot, a.update(2, root, boot), reboot}},
		{"live", liveDevice(true, false), []step{a.update(1, app), install, accept, a.clean(app), a.update(2, app), install, restart, reject, a.clean(app)}},
		{"live-without-trial", liveDevice(false, false), []step{a.update(1, app), install, a.clean(app), a.update(2, app), install, reboot, a.clean(app)}},
		{"live-volatile", liveDevice(true, true), []step{a.update(1, app), install, reboot, a.update(2, app), install, accept, reboot}},
		{"live-beside-bank", liveDevice(true, false), []step{a.update(1, app), install, a.update(1, boot, root), accept, install, reboot, accept, a.clean(app), a.clean(boot), a.clean(root)}},
	}
	out = append(out, onOtherMedia(out)...)
	for _, scheme := range []uboot.Scheme{uboot.BootOrder, uboot.BootCount} {
		d := bankDevice(true, false, fwu.Detached).on(scheme)
		out = append(out,
			story{"update-" + string(scheme), d, []step{a.update(1, boot, root), install, reboot, accept, a.clean(boot), a.clean(root)}},
			story{"reject-trial-" + string(scheme), d, []step{a.update(1, boot, root), install, reboot, reject, reboot, a.clean(root), a.clean(boot)}},
			story{"trial-lapses-" + string(scheme), d, []step{a.update(alone, root), install, reboot, reboot, a.clean(root)}})
	}
	return append(out, efiStories(out)...)
}

// onOtherMedia are the stories that write images in different ways, on media that do more than one
// thing after the other.
func onOtherMedia(all []story) []story {
	var out []story
	for _, st := range all {
		switch st.name {
		case "update", "carry-over-of-root", "resume", "resume-compressed", "scattered", "twice":
			out = append(out, story{"zeroes-" + st.name, st.dev.onMedia(zeroes), st.play}, story{"concurrent-" + st.name, st.dev.onMedia(concurrent), st.play})
		}
	}
	return out
}
