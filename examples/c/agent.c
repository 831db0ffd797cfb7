// An update agent in C.
//
//	agent update COMPONENT MANIFEST IMAGE [--reboot]	MANIFEST is - for a component that takes bundles
//	agent accept
//	agent reject
//
// cc -std=c11 -Wall -Wextra -Werror -o agent agent.c $(pkg-config --cflags --libs libsystemd)

#define _GNU_SOURCE // memmem
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#define BUS "org.fwuab.FirmwareUpdate1"
#define MANAGER "/org/fwuab/FirmwareUpdate1"
#define NO_TIMEOUT UINT64_MAX

enum { READY, WRITING, CANDIDATE, STAGED, FAILED, TRIAL, REJECTED, UPDATED };
enum { SUCCESS_REBOOT = 1, HEADER = 65536 };

static sd_bus *bus;

// must ends the program where something failed that is no answer of the service.
static int must(int r, const char *what)
{
	if (r >= 0)
		return r;
	fprintf(stderr, "%s: %s\n", what, strerror(-r));
	exit(1);
}

// refused ends the program with the D-Bus error that was the answer. An error of the bus itself has no details.
static void refused(sd_bus_message *m)
{
	const sd_bus_error *e = sd_bus_message_get_error(m);
	const char *key, *reason = "";

	if (must(sd_bus_message_has_signature(m, "sa{sv}"), "error")) {
		must(sd_bus_message_skip(m, "s"), "error");
		must(sd_bus_message_enter_container(m, 'a', "{sv}"), "error");
		while (must(sd_bus_message_enter_container(m, 'e', "sv"), "error") > 0) {
			must(sd_bus_message_read(m, "s", &key), "error");
			if (strcmp(key, "reason") == 0)
				must(sd_bus_message_read(m, "v", "s", &reason), "error");
			else
				must(sd_bus_message_skip(m, "v"), "error");
			must(sd_bus_message_exit_container(m), "error");
		}
	}
	fprintf(stderr, "%s: %s (%s)\n", e->name, e->message, reason);
	exit(1);
}

static int keep(sd_bus_message *m, void *reply, sd_bus_error *unused)
{
	(void)unused;
	*(sd_bus_message **)reply = sd_bus_message_ref(m);
	return 1;
}

// answer sends a call and waits for the reply. sd_bus_call would drop the details of an error.
static sd_bus_message *answer(sd_bus_message *call)
{
	sd_bus_message *reply = NULL;

	must(sd_bus_call_async(bus, NULL, call, keep, &reply, NO_TIMEOUT), "send");
	while (!reply)
		if (must(sd_bus_process(bus, NULL), "process") == 0)
			must(sd_bus_wait(bus, UINT64_MAX), "wait");
	sd_bus_message_unref(call);
	if (sd_bus_message_is_method_error(reply, NULL))
		refused(reply);
	return reply;
}

static sd_bus_message *new_call(const char *path, const char *interface, const char *method)
{
	sd_bus_message *m;

	must(sd_bus_message_new_method_call(bus, &m, BUS, path, interface, method), method);
	return m;
}

// simple is a call whose last argument is an empty set of options, and that returns nothing.
static void simple(const char *path, const char *interface, const char *method)
{
	sd_bus_message *m = new_call(path, interface, method);

	must(sd_bus_message_append(m, "a{sv}", 0), method);
	sd_bus_message_unref(answer(m));
}

// property reads one; what a string points to stays as long as the program.
static void property(const char *path, const char *name, const char *type, void *first, void *second)
{
	sd_bus_message *m = new_call(path, "org.freedesktop.DBus.Properties", "Get");

	must(sd_bus_message_append(m, "ss", BUS ".Component", name), name);
	m = answer(m);
	must(sd_bus_message_read(m, "v", type, first, second), name);
}

static uint8_t state_of(const char *path)
{
	uint8_t state;

	property(path, "State", "y", &state, NULL);
	return state;
}

static void clean(const char *path, const char *name)
{
	const char *code, *text;

	property(path, "Reason", "(ss)", &code, &text);
	printf("%s: cleaning: %s %s\n", name, code, text);
	simple(path, BUS ".Component", "Clean");
}

// find cleans what earlier updates left behind, in every component, as they are installed as a whole; it returns the path of the one that is wanted.
static const char *find(const char *wanted)
{
	sd_bus_message *m = answer(new_call(MANAGER, BUS ".Manager", "ListComponents"));
	const char *name, *path, *found = NULL;
	uint8_t id, state;

	must(sd_bus_message_enter_container(m, 'a', "(yso)"), "ListComponents");
	while (must(sd_bus_message_read(m, "(yso)", &id, &name, &path), "ListComponents") > 0) {
		state = state_of(path);
		if (state == FAILED || state == UPDATED)
			clean(path, name);
		if (strcmp(name, wanted) == 0)
			found = path;
	}
	if (!found) {
		fprintf(stderr, "this device has no component %s\n", wanted);
		exit(1);
	}
	return found;
}

// ours: the image in preparation was started with this manifest. An envelope has the digest of its manifest in it.
static int ours(const char *path, const uint8_t *envelope, size_t length)
{
	const char *digest;
	uint8_t raw[64];
	size_t n = 0;

	property(path, "ManifestDigest", "s", &digest, NULL);
	digest = strchr(digest, ':');
	if (!digest)
		return 0;
	for (digest++; n < sizeof raw && sscanf(digest, "%2hhx", &raw[n]) == 1; n++)
		digest += 2;
	return memmem(envelope, length, raw, n) != NULL;
}

static int open_file(const char *file)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC);

	return must(fd < 0 ? -errno : fd, file);
}

static size_t read_begin(int fd, const char *file, uint8_t *buffer)
{
	ssize_t n = pread(fd, buffer, HEADER, 0);

	return (size_t)must(n < 0 ? -errno : (int)n, file);
}

static void start(const char *path, const uint8_t *manifest, size_t length)
{
	sd_bus_message *m = new_call(path, BUS ".Component", "Start");

	must(sd_bus_message_append_array(m, 'y', manifest, length), "Start");
	must(sd_bus_message_append(m, "a{sv}", 0), "Start");
	sd_bus_message_unref(answer(m));
}

// transfer writes from an offset on: the service reads from where the descriptor stands.
static void transfer(const char *path, const char *name, int image, uint64_t offset)
{
	sd_bus_message *m;
	struct stat st;

	must(fstat(image, &st) < 0 ? -errno : 0, name);
	must(lseek(image, (off_t)offset, SEEK_SET) < 0 ? -errno : 0, name);
	if (offset != (uint64_t)st.st_size) {
		m = new_call(path, BUS ".Component", "WriteFile");
		must(sd_bus_message_append(m, "thta{sv}", offset, image, (uint64_t)0, 0), "WriteFile");
		sd_bus_message_unref(answer(m));
	}
	printf("%s: verifying\n", name);
	simple(path, BUS ".Component", "Finish");
}

static void reboot_needed(int reboot)
{
	puts("a reboot is needed");
	if (reboot)
		simple(MANAGER, BUS ".Manager", "RequestReboot");
}

// decide is a call of the manager that returns a status.
static void decide(sd_bus_message *call, int reboot)
{
	sd_bus_message *m;
	int32_t status;

	must(sd_bus_message_append(call, "a{sv}", 0), "options");
	m = answer(call);
	must(sd_bus_message_read(m, "i", &status), "status");
	sd_bus_message_unref(m);
	if (status == SUCCESS_REBOOT)
		reboot_needed(reboot);
}

static int update(const char *name, const char *manifest_file, const char *image_file, int reboot)
{
	static uint8_t envelope[HEADER];
	int bundled = strcmp(manifest_file, "-") == 0;
	int image = open_file(image_file);
	int manifest = bundled ? image : open_file(manifest_file);
	size_t length = read_begin(manifest, manifest_file, envelope);
	const char *path = find(name);
	uint8_t state = state_of(path);
	uint64_t written = 0;

	switch (state) {
	case STAGED:
	case REJECTED: // nothing else can be done before
		reboot_needed(reboot);
		return reboot ? 0 : 1;
	case TRIAL:
		fprintf(stderr, "%s is on trial: accept or reject it first\n", name);
		return 1;
	case WRITING:
	case CANDIDATE:
		if (ours(path, envelope, length))
			break;
		printf("%s: cancelling another update\n", name);
		sd_bus_message_unref(answer(new_call(path, BUS ".Component", "Cancel")));
		clean(path, name);
		state = READY;
	}
	if (state == READY) {
		printf("%s: starting\n", name);
		start(path, envelope, bundled ? 0 : length);
		transfer(path, name, image, 0);
	} else if (state == WRITING) {
		property(path, "Written", "t", &written, NULL);
		printf("%s: continuing at %llu\n", name, (unsigned long long)written);
		transfer(path, name, image, written);
	}
	puts("installing");
	decide(new_call(MANAGER, BUS ".Manager", "Install"), reboot);
	return 0;
}

int main(int argc, char **argv)
{
	int reboot = argc == 6 && strcmp(argv[5], "--reboot") == 0;
	const char *verb = argc > 1 ? argv[1] : "";
	sd_bus_message *m;

	setvbuf(stdout, NULL, _IOLBF, 0);
	must(sd_bus_open_system(&bus), "connect to the system bus");
	if (strcmp(verb, "update") == 0 && (argc == 5 || reboot))
		return update(argv[2], argv[3], argv[4], reboot);
	if (strcmp(verb, "accept") == 0 && argc == 2) {
		decide(new_call(MANAGER, BUS ".Manager", "Accept"), 0);
		return 0;
	}
	if (strcmp(verb, "reject") == 0 && argc == 2) {
		m = new_call(MANAGER, BUS ".Manager", "Reject");
		must(sd_bus_message_append(m, "i", (int32_t)0), "Reject");
		decide(m, 0);
		return 0;
	}
	fprintf(stderr, "usage: %s update COMPONENT MANIFEST IMAGE [--reboot] | accept | reject\n", argv[0]);
	return 2;
}
