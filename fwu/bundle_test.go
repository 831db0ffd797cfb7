package fwu_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"testing"
	"time"

	"github.com/fwu-ab/fwu-ab/fwu"
	"github.com/fwu-ab/fwu-ab/fwu/fwutest"
	"github.com/fwu-ab/fwu-ab/suit"
	"github.com/fwu-ab/fwu-ab/zstdframe"
)

// together makes one manifest of several images.
func (d *device) together(change func(*suit.Spec), images map[string][]byte) []byte {
	d.t.Helper()
	var spec suit.Spec
	for _, name := range []string{"rootfs", "bootfw", "lib", "other"} {
		image, ok := images[name]
		if !ok {
			continue
		}
		s := d.spec(name, image, "2.0.0", 2)
		if spec.Images == nil {
			spec = s
		} else {
			spec.Images = append(spec.Images, s.Images...)
		}
	}
	if change != nil {
		change(&spec)
	}
	m, err := d.Creator.Manifest(spec)
	d.do(err)
	return m
}

// fill writes a detached image of a manifest.
func (d *device) fill(id fwu.ID, manifest, image []byte) {
	d.t.Helper()
	d.do(d.Start(d.t.Context(), id, manifest))
	_, err := d.WriteFrom(d.t.Context(), id, 0, bytes.NewReader(image), 0)
	d.do(err)
	d.do(d.Finish(d.t.Context(), id))
}

// What one manifest brings is installed together or not at all.
func TestImagesOfOneManifestAreInstalledTogether(t *testing.T) {
	rootfs, bootfw := randomImage(10, 50000), randomImage(11, 60000)
	both := map[string][]byte{"rootfs": rootfs, "bootfw": bootfw}
	for name, tt := range map[string]struct {
		before func(d *device, m []byte)
		ok     bool
	}{
		"both are candidates": {func(d *device, m []byte) { d.fill(1, m, bootfw) }, true},
		"one is missing":      {func(*device, []byte) {}, false},
		"one is being written": {func(d *device, m []byte) {
			d.do(d.Start(d.t.Context(), 1, m))
		}, false},
		"one is a candidate of another manifest":                        {func(d *device, _ []byte) { d.candidate(1, "bootfw", randomImage(12, 60000), "2.0.0", 2) }, false},
		"one is a candidate of another manifest, and is the same image": {func(d *device, _ []byte) { d.candidate(1, "bootfw", bootfw, "2.0.0", 2) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t, true, bank("rootfs", "bootfw")...)
			m := d.together(nil, both)
			d.fill(0, m, rootfs)
			tt.before(d, m)
			before := d.states()
			if tt.ok {
				d.installed(fwu.SuccessReboot)
				d.reboot()
				d.want("rootfs TRIAL 2.0.0, bootfw TRIAL 2.0.0")
				return
			}
			_, err := d.Install(t.Context())
			d.wantStatus(err, fwu.DependencyNeeded, fwu.ReasonDependency)
			d.names(err, 1)
			d.want(before)
			d.restart()
			_, err = d.Install(t.Context())
			d.wantStatus(err, fwu.DependencyNeeded, fwu.ReasonDependency)
		})
	}
}

// An image that runs already need not be written again for the other one of its manifest.
func TestImageOfTheManifestThatRunsAlready(t *testing.T) {
	rootfs, bootfw := randomImage(10, 50000), randomImage(11, 60000)
	d := newDevice(t, false, bank("rootfs", "bootfw")...)
	d.candidate(1, "bootfw", bootfw, "2.0.0", 2)
	d.installed(fwu.SuccessReboot)
	d.reboot()
	d.do(d.Clean(t.Context(), 1))
	d.fill(0, d.together(nil, map[string][]byte{"rootfs": rootfs, "bootfw": bootfw}), rootfs)
	d.installed(fwu.SuccessReboot)
	d.reboot()
	d.want("rootfs UPDATED 2.0.0, bootfw READY 2.0.0")
}

func TestManifestThatDoesNotFitTheDevice(t *testing.T) {
	image := randomImage(10, 50000)
	const full = 5000
	for name, tt := range map[string]struct {
		change  func(*suit.Spec)
		images  map[string][]byte
		battery func() (uint64, error)
		start   fwu.Reason
		install fwu.Reason
		status  fwu.Status
	}{
		"an image for a component that is not there": {images: map[string][]byte{"rootfs": image, "other": image}, start: fwu.ReasonComponentMismatch, status: fwu.NotPermitted},
		"for another device":                         {change: func(s *suit.Spec) { s.ID = suit.UUID{1} }, start: fwu.ReasonDeviceMismatch, status: fwu.NotPermitted},
		"present version too low": {change: func(s *suit.Spec) {
			s.Dependencies = []suit.Dependency{{Component: "rootfs", Requirement: suit.Requirement{Comparison: suit.Greater, Version: suit.Version{Major: 1}, Numbers: 1}, Present: true}}
		}, install: fwu.ReasonDependency, status: fwu.DependencyNeeded},
		"present version is right": {change: func(s *suit.Spec) {
			s.Dependencies = []suit.Dependency{{Component: "rootfs", Requirement: suit.Requirement{Comparison: suit.Equal, Version: suit.Version{Major: 1}, Numbers: 1}, Present: true}}
		}},
		"battery is low":       {change: func(s *suit.Spec) { s.Battery = full + 1 }, battery: func() (uint64, error) { return full, nil }, install: fwu.ReasonBattery, status: fwu.InsufficientPower},
		"battery is enough":    {change: func(s *suit.Spec) { s.Battery = full }, battery: func() (uint64, error) { return full, nil }},
		"battery is not known": {change: func(s *suit.Spec) { s.Battery = full }, battery: func() (uint64, error) { return 0, errors.New("no answer") }, install: fwu.ReasonBattery, status: fwu.InsufficientPower},
		"no battery":           {change: func(s *suit.Spec) { s.Battery = full }},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t, true, bank("rootfs")...)
			d.Config.Battery = tt.battery
			d.restart()
			if tt.images == nil {
				tt.images = map[string][]byte{"rootfs": image}
			}
			err := d.Start(t.Context(), 0, d.together(tt.change, tt.images))
			if tt.start != "" {
				d.wantStatus(err, tt.status, tt.start)
				d.want("rootfs READY 1.0.0")
				return
			}
			d.do(err)
			_, err = d.WriteFrom(t.Context(), 0, 0, bytes.NewReader(image), 0)
			d.do(err)
			d.do(d.Finish(t.Context(), 0))
			d.restart() // what was demanded is on record
			_, err = d.Install(t.Context())
			if tt.install == "" {
				d.do(err)
				return
			}
			d.wantStatus(err, tt.status, tt.install)
			d.want("rootfs CANDIDATE 1.0.0")
		})
	}
}

const frame = 1 << 20 // what zstdframe.Default puts into one

// compressed makes an image that has several frames, and its payload.
func compressed(t *testing.T, size int) (image, payload []byte) {
	t.Helper()
	image = randomImage(20, size)
	var b bytes.Buffer
	_, _, err := zstdframe.Compress(&b, bytes.NewReader(image), zstdframe.Default)
	if err != nil {
		t.Fatal(err)
	}
	return image, b.Bytes()
}

// compressedDevice has one component, whose slots take several frames, and says what is to be written for it.
func compressedDevice(t *testing.T, mode fwu.ManifestMode, payload func([]byte) []byte) (d *device, image, manifest, stream []byte) {
	return streamDevice(t, mode, true, payload)
}

// streamDevice is compressedDevice, also for an image that is not compressed.
func streamDevice(t *testing.T, mode fwu.ManifestMode, packed bool, payload func([]byte) []byte) (d *device, image, manifest, stream []byte) {
	const size = 3*frame + 5000
	d = newDevice(t, true, bank("rootfs")...)
	d.Add(fwu.Component{ID: 1, Name: "data", Manifest: mode}, 4*frame, nil)
	d.do(d.Stop())
	d.do(fwu.Provision(t.Context(), d.Config, map[string]int64{"data": 4096}, true))
	d.reboot()
	image, stream = compressed(t, size)
	spec := d.spec("data", image, "2.0.0", 2)
	spec.Images[0].URI, spec.Images[0].Compression = "#data", suit.CompressionZstd
	if !packed {
		spec.Images[0].Compression, stream = "", bytes.Clone(image)
	}
	manifest, err := d.Creator.Manifest(spec)
	d.do(err)
	if payload != nil {
		stream = payload(stream)
	}
	if mode == fwu.Bundled {
		h, err := suit.ReadHeader(manifest)
		d.do(err)
		head, err := h.Single(suit.Payload{Key: "#data", Size: int64(len(stream))})
		d.do(err)
		manifest, stream = nil, append(head, stream...)
	}
	return d, image, manifest, stream
}

// A compressed transfer goes on where a frame began, whoever died meanwhile.
func TestCompressedTransfer(t *testing.T) {
	for _, mode := range []fwu.ManifestMode{fwu.Detached, fwu.Bundled} {
		for name, cut := range map[string]func(*device){
			"in one go":      nil,
			"client cut off": func(*device) {},
			"service left":   func(d *device) { d.restart() },
			"service died":   func(d *device) { d.Kill(); d.restart() },
		} {
			t.Run(string(mode)+" "+name, func(t *testing.T) {
				d, image, manifest, stream := compressedDevice(t, mode, nil)
				ctx := t.Context()
				d.do(d.Start(ctx, 1, manifest))
				written := func() int64 {
					info, err := d.Query(ctx, 1)
					d.do(err)
					return info.Impl.Written
				}
				if cut != nil {
					_, err := d.WriteFrom(ctx, 1, 0, bytes.NewReader(stream[:frame+frame/2]), 0)
					d.do(err)
					if n := written(); n < frame/2 || n > frame+4096 {
						t.Fatalf("%d bytes are durable", n)
					}
					cut(d)
					d.wantStatus(d.Write(ctx, 1, 2*frame, stream[2*frame:2*frame+4096]), fwu.InvalidArgument, fwu.ReasonOffset)
				}
				_, err := d.WriteFrom(ctx, 1, written(), bytes.NewReader(stream[written():]), 0)
				d.do(err)
				if name == "service died" || name == "service left" {
					cut(d)
				}
				d.do(d.Finish(ctx, 1))
				d.restart()
				d.installed(fwu.SuccessReboot)
				d.holds("data_b", image)
			})
		}
	}
}

// A client that begins anew before anything is durable is taken at its word.
func TestCompressedTransferThatBeginsAnew(t *testing.T) {
	for _, mode := range []fwu.ManifestMode{fwu.Detached, fwu.Bundled} {
		t.Run(string(mode), func(t *testing.T) {
			d, image, manifest, stream := compressedDevice(t, mode, nil)
			ctx := t.Context()
			d.do(d.Start(ctx, 1, manifest))
			for _, n := range []int{4096, 8192, 300000} {
				d.do(d.Write(ctx, 1, 0, stream[:n]))
			}
			_, err := d.WriteFrom(ctx, 1, 0, bytes.NewReader(stream), 0)
			d.do(err)
			d.do(d.Finish(ctx, 1))
			d.installed(fwu.SuccessReboot)
			d.holds("data_b", image)
		})
	}
}

func TestPayloadThatIsNotWhatTheManifestSays(t *testing.T) {
	flip := func(at int) func([]byte) []byte {
		return func(p []byte) []byte { p = bytes.Clone(p); p[at] ^= 1; return p }
	}
	for name, tt := range map[string]struct {
		payload func([]byte) []byte
		reason  fwu.Reason
		status  fwu.Status
	}{
		"not compressed":       {func([]byte) []byte { return randomImage(20, 3*frame+5000) }, fwu.ReasonPayload, fwu.InvalidArgument},
		"damaged in a frame":   {flip(2*frame + 1000), fwu.ReasonPayload, fwu.InvalidArgument},
		"damaged header":       {flip(0), fwu.ReasonPayload, fwu.InvalidArgument},
		"ends early":           {func(p []byte) []byte { return p[:2*frame] }, fwu.ReasonImageSize, fwu.InvalidArgument},
		"ends within a frame":  {func(p []byte) []byte { return p[:len(p)-1] }, fwu.ReasonImageSize, fwu.InvalidArgument},
		"something after":      {func(p []byte) []byte { return append(bytes.Clone(p), "more"...) }, fwu.ReasonPayload, fwu.InvalidArgument},
		"a frame more":         {func(p []byte) []byte { _, more := compressed(t, 100); return append(bytes.Clone(p), more...) }, fwu.ReasonPayload, fwu.InvalidArgument},
		"another image, sound": {func([]byte) []byte { return other(t) }, fwu.ReasonImageDigest, fwu.InvalidSignature},
	} {
		for _, mode := range []fwu.ManifestMode{fwu.Detached, fwu.Bundled} {
			t.Run(name+" "+string(mode), func(t *testing.T) {
				d, _, manifest, stream := compressedDevice(t, mode, tt.payload)
				ctx := t.Context()
				d.do(d.Start(ctx, 1, manifest))
				_, err := d.WriteFrom(ctx, 1, 0, bytes.NewReader(stream), 0)
				if err == nil {
					err = d.Finish(ctx, 1)
				}
				d.wantStatus(err, tt.status, tt.reason)
				d.want("rootfs READY 1.0.0, data FAILED 0.0.0")
				d.do(d.Clean(ctx, 1))
				d.want("rootfs READY 1.0.0, data READY 0.0.0")
			})
		}
	}
}

// other is the payload of another image of the same size.
func other(t *testing.T) []byte {
	var b bytes.Buffer
	if _, _, err := zstdframe.Compress(&b, bytes.NewReader(randomImage(21, 3*frame+5000)), zstdframe.Fastest); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A bundle with payloads for others must come one component at a time.
func TestBundleForOthersToo(t *testing.T) {
	comps := bank("rootfs", "bootfw")
	comps[0].Manifest, comps[1].Manifest = fwu.Bundled, fwu.Bundled
	d := newDevice(t, true, comps...)
	images := map[string][]byte{"rootfs": randomImage(10, 50000), "bootfw": randomImage(11, 60000)}
	m := d.together(func(s *suit.Spec) { s.Images[0].URI, s.Images[1].URI = "#rootfs", "#bootfw" }, images)
	var b bytes.Buffer
	var payloads []suit.PayloadSource
	for name, image := range images {
		payloads = append(payloads, suit.PayloadSource{Key: "#" + name, Size: int64(len(image)), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(image)), nil }})
	}
	d.do(suit.WriteBundle(&b, m, payloads))
	ctx := t.Context()
	d.do(d.Start(ctx, 0, nil))
	_, err := d.WriteFrom(ctx, 0, 0, bytes.NewReader(b.Bytes()), 0)
	d.wantStatus(err, fwu.InvalidArgument, fwu.ReasonManifestInvalid)
	d.do(d.Clean(ctx, 0))

	bundle, err := suit.NewBundle(&b)
	d.do(err)
	for _, id := range []fwu.ID{1, 0} { // the order of the payloads
		p, err := bundle.Next()
		d.do(err)
		head, err := bundle.Single(p)
		d.do(err)
		d.do(d.Start(ctx, id, nil))
		_, err = d.WriteFrom(ctx, id, 0, io.MultiReader(bytes.NewReader(head), bundle), 0)
		d.do(err)
		d.do(d.Finish(ctx, id))
	}
	d.installed(fwu.SuccessReboot)
	d.holds("rootfs_b", images["rootfs"])
	d.holds("bootfw_b", images["bootfw"])
}

// inPieces makes bundles of an image for rootfs whose header is larger than a block, as the manifest has another image itself.
func (d *device) inPieces(creator fwutest.Creator, image []byte, version string, sequence uint64) (stream []byte, header int) {
	d.t.Helper()
	spec := d.spec("rootfs", image, version, sequence)
	setting := randomImage(sequence, 20000)
	spec.Images[0].URI = "#rootfs"
	spec.Images = append(spec.Images, d.spec("setting", setting, version, sequence).Images[0])
	spec.Images[1].Content = setting
	envelope, err := creator.Manifest(spec)
	d.do(err)
	var b bytes.Buffer
	d.do(suit.WriteBundle(&b, envelope, []suit.PayloadSource{{Key: "#rootfs", Size: int64(len(image)), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(image)), nil }}}))
	return b.Bytes(), b.Len() - len(image)
}

// A header that comes in pieces is verified whole, once it is whole; what came in between, and what comes later, changes nothing of what was verified.
func TestHeaderThatComesInPieces(t *testing.T) {
	const block = fwu.WriteAlignment
	first, second := randomImage(30, 100000), randomImage(31, 100000)
	type step struct {
		from int // 0: the first bundle, 1: the second one, 2: that of a stranger
		off  int
		end  int // the next block begins there; 0: the stream ends
	}
	known := (20000/block + 2) * block // beyond the header, and nothing is durable yet
	for name, tt := range map[string]struct {
		steps  []step
		image  []byte
		status fwu.Status // of the last step, or of finish
		reason fwu.Reason
		failed bool
	}{
		"as it is":                          {steps: []step{{0, 0, 0}}, image: first},
		"begun anew":                        {steps: []step{{0, 0, block}, {0, 0, 0}}, image: first},
		"begun anew as another":             {steps: []step{{0, 0, 3 * block}, {1, 0, 0}}, image: second},
		"begun anew by a stranger":          {steps: []step{{0, 0, 3 * block}, {2, 0, 0}}, status: fwu.InvalidSignature, reason: fwu.ReasonManifestSignature, failed: true},
		"ends as another":                   {steps: []step{{0, 0, 3 * block}, {1, 3 * block, 0}}, status: fwu.InvalidSignature, reason: fwu.ReasonManifestSignature, failed: true},
		"changed in the middle":             {steps: []step{{0, 0, block}, {1, block, 2 * block}, {0, 2 * block, 0}}, status: fwu.InvalidSignature, reason: fwu.ReasonManifestSignature, failed: true},
		"a piece again":                     {steps: []step{{0, 0, 2 * block}, {1, block, 2 * block}}, status: fwu.InvalidArgument, reason: fwu.ReasonOffset},
		"a piece is left out":               {steps: []step{{0, 0, block}, {0, 2 * block, 3 * block}}, status: fwu.InvalidArgument, reason: fwu.ReasonOffset},
		"verified, and another image":       {steps: []step{{0, 0, known}, {1, known, 0}}, status: fwu.InvalidSignature, reason: fwu.ReasonImageDigest, failed: true},
		"verified, and a piece again":       {steps: []step{{0, 0, known}, {1, block, 2 * block}}, status: fwu.InvalidArgument, reason: fwu.ReasonOffset},
		"verified, and begun anew":          {steps: []step{{0, 0, known}, {1, 0, 0}}, image: second},
		"verified, and begun by a stranger": {steps: []step{{0, 0, known}, {2, 0, 0}}, status: fwu.InvalidSignature, reason: fwu.ReasonManifestSignature, failed: true},
		"verified, begun anew, image of the first": {steps: []step{{0, 0, known}, {1, 0, known}, {0, known, 0}},
			status: fwu.InvalidSignature, reason: fwu.ReasonImageDigest, failed: true},
	} {
		t.Run(name, func(t *testing.T) {
			comps := bank("rootfs", "setting")
			comps[0].Manifest = fwu.Bundled
			d := newDevice(t, true, comps...)
			var streams [3][]byte
			for i, creator := range []fwutest.Creator{d.Creator, d.Creator, fwutest.NewCreator("stranger")} {
				var header int
				streams[i], header = d.inPieces(creator, [][]byte{first, second, second}[i], fmt.Sprintf("%d.0.0", 2+i), uint64(2+i))
				if header <= 4*block || header >= known {
					t.Fatalf("header of %d bytes", header)
				}
			}
			ctx := t.Context()
			d.do(d.Start(ctx, 0, nil))
			var err error
			for i, s := range tt.steps {
				stream := streams[s.from]
				end := s.end
				if end == 0 {
					end = len(stream)
				}
				for off := s.off; off < end && err == nil; off += block {
					err = d.Write(ctx, 0, int64(off), stream[off:min(off+block, end)])
				}
				if err != nil && i < len(tt.steps)-1 {
					t.Fatalf("step %d: %v", i, err)
				}
			}
			if err == nil {
				err = d.Finish(ctx, 0)
			}
			if tt.image != nil {
				d.do(err)
				last := tt.steps[len(tt.steps)-1].from
				h, err := suit.ReadHeader(streams[last])
				d.do(err)
				d.fill(1, h.Envelope, randomImage(uint64(2+last), 20000))
				d.installed(fwu.SuccessReboot)
				d.holds("rootfs_b", tt.image)
				d.reboot()
				d.want(fmt.Sprintf("rootfs TRIAL %d.0.0, setting TRIAL %[1]d.0.0", 2+last))
				return
			}
			d.wantStatus(err, tt.status, tt.reason)
			state := "WRITING"
			if tt.failed {
				state = "FAILED"
			}
			d.want("rootfs " + state + " 1.0.0, setting READY 0.0.0")
		})
	}
}

// authority is a certificate authority, and a signer with a certificate of it for a year from begin.
func authority(t *testing.T, begin time.Time) (anchors suit.VerifyKeys, sign func(*suit.Spec) []byte) {
	t.Helper()
	make := func(serial int64, isCA bool, parent *x509.Certificate, parentKey *ecdsa.PrivateKey, begin time.Time, years int) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"}, NotBefore: begin, NotAfter: begin.AddDate(years, 0, 0), BasicConstraintsValid: true, IsCA: isCA}
		c.KeyUsage = x509.KeyUsageDigitalSignature
		if isCA {
			c.KeyUsage, parent, parentKey = x509.KeyUsageCertSign, c, key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, parentKey)
		if err != nil {
			t.Fatal(err)
		}
		if c, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
		return c, key
	}
	ca, caKey := make(1, true, nil, nil, time.Unix(0, 0), 100)
	leaf, key := make(2, false, ca, caKey, begin, 1)
	return suit.VerifyKeys{{CA: ca}}, func(s *suit.Spec) []byte {
		e, err := suit.Create(*s)
		if err != nil {
			t.Fatal(err)
		}
		if e, err = suit.Sign(e, key, suit.Identity{Chain: []*x509.Certificate{leaf}}); err != nil {
			t.Fatal(err)
		}
		return e
	}
}

// The time that certificates are looked at for is the latest that has come: a clock that begins in 1970 does not bring an expired one back.
func TestTimeOfCertificates(t *testing.T) {
	at := func(year int) time.Time { return time.Date(year, 6, 1, 0, 0, 0, 0, time.UTC) }
	image := randomImage(10, 50000)
	anchors, signOf := authority(t, at(2030))
	later := func(t *testing.T, d *device) suit.VerifyKeys { // accepts an image that was signed in 2035
		anchors, sign := authority(t, at(2035))
		d.Config.Components[0].Keys = anchors
		d.restart()
		spec := d.spec("rootfs", image, "2.0.0", 2)
		d.fill(0, sign(&spec), image)
		d.installed(fwu.SuccessReboot)
		d.reboot()
		d.do(d.Accept(t.Context()))
		d.do(d.Clean(t.Context(), 0))
		return anchors
	}
	for name, tt := range map[string]struct {
		clock  time.Time
		before bool // an image was accepted that was signed later
		ok     bool
	}{
		"valid now":         {at(2030).AddDate(0, 1, 0), false, true},
		"not yet valid":     {at(2029), false, false},
		"expired":           {at(2032), false, false},
		"clock in the past": {time.Unix(0, 0), false, false},
		"expired, as an image that was accepted shows": {at(2030).AddDate(0, 1, 0), true, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t, true, bank("rootfs")...)
			clock := at(2035).AddDate(0, 1, 0)
			d.Config.Time = func() time.Time { return clock }
			if tt.before {
				later(t, d)
			}
			d.Config.Components[0].Keys = anchors
			d.restart()
			clock = tt.clock
			spec := d.spec("rootfs", image, "2.1.0", 3)
			err := d.Start(t.Context(), 0, signOf(&spec))
			if tt.ok {
				d.do(err)
				return
			}
			d.wantStatus(err, fwu.InvalidSignature, fwu.ReasonManifestSignature)
		})
	}
	t.Run("no time is known", func(t *testing.T) {
		d := newDevice(t, true, bank("rootfs")...)
		d.Config.Components[0].Keys = anchors
		d.restart()
		spec := d.spec("rootfs", image, "2.1.0", 3)
		d.wantStatus(d.Start(t.Context(), 0, signOf(&spec)), fwu.InvalidSignature, fwu.ReasonManifestSignature)
	})
}
