/*
 * The way to the service: a connection to the bus for each thread that makes calls, closed when the thread ends. Threads do not wait for each other.
 *
 * Calls go to the unique name of a service that was found fit, so that one that has come back as another version is looked at before it is given
 * anything to do. A call to a name that has gone was not delivered, and is made again, once.
 */
#define _GNU_SOURCE /* secure_getenv */

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fwuab.h"

struct connection {
    sd_bus *bus;
    pid_t pid;       /* who opened it: one that came over a fork is not ours */
    char owner[256]; /* unique name of the service, empty if it is not known; the bus gives no longer ones */
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static int key_error;

static void disconnect(struct connection *c)
{
    if (c->bus != NULL) {
        sd_bus_close(c->bus); /* does nothing to what belongs to another process */
        sd_bus_unref(c->bus);
    }
    c->bus = NULL;
    c->owner[0] = '\0';
}

static void thread_ends(void *connection)
{
    int before;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before); /* or a cancel that is pending ends it at the first close */
    disconnect(connection);
    free(connection);
    pthread_setcancelstate(before, NULL);
}

static void make_key(void)
{
    key_error = pthread_key_create(&key, thread_ends);
}

/* The connection of this thread, NULL if there is no memory for one. */
static struct connection *of_thread(void)
{
    if (pthread_once(&once, make_key) != 0 || key_error != 0) {
        return NULL;
    }
    struct connection *c = pthread_getspecific(key);
    if (c == NULL) {
        c = calloc(1, sizeof *c);
        if (c != NULL && pthread_setspecific(key, c) != 0) {
            free(c);
            c = NULL;
        }
    }
    return c;
}

static int open_bus(sd_bus **bus)
{
    const char *address = secure_getenv("FWU_AB_BUS");
    if (address == NULL || address[0] == '\0' || strcmp(address, "system") == 0) {
        return sd_bus_open_system(bus);
    }
    if (strcmp(address, "session") == 0) {
        return sd_bus_open_user(bus);
    }
    sd_bus *b = NULL;
    int r = sd_bus_new(&b);
    if (r >= 0) {
        r = sd_bus_set_address(b, address);
    }
    if (r >= 0) {
        r = sd_bus_set_bus_client(b, 1);
    }
    if (r >= 0) {
        r = sd_bus_start(b);
    }
    if (r < 0) {
        sd_bus_unref(b);
        return r;
    }
    *bus = b;
    return 0;
}

/* Takes in what the bus has sent meanwhile: that it closed the connection, if it did. */
static int usable(const struct connection *c)
{
    if (c->bus == NULL || c->pid != getpid()) {
        return 0;
    }
    int r;
    do {
        r = sd_bus_process(c->bus, NULL);
    } while (r > 0);
    return r == 0 && sd_bus_is_open(c->bus) > 0;
}

static int connect_bus(struct connection *c)
{
    if (usable(c)) {
        return 0;
    }
    disconnect(c);
    c->pid = getpid();
    return open_bus(&c->bus);
}

static int keep_answer(sd_bus_message *message, void *answer, sd_bus_error *error)
{
    (void)error;
    *(sd_bus_message **)answer = sd_bus_message_ref(message);
    return 1;
}

/* Sends a call and waits for the answer, which may be an error, without a time-out. */
static int exchange(sd_bus *bus, sd_bus_message *message, sd_bus_message **answer)
{
    sd_bus_slot *slot = NULL;
    int r = sd_bus_call_async(bus, &slot, message, keep_answer, answer, UINT64_MAX);
    while (r >= 0 && *answer == NULL) {
        r = sd_bus_process(bus, NULL);
        if (r == 0) {
            r = sd_bus_wait(bus, UINT64_MAX);
        }
        if (r == -EINTR) { /* a signal handler of the client ran */
            r = 0;
        }
    }
    sd_bus_slot_unref(slot);
    if (r >= 0 || *answer != NULL) {
        return 0;
    }
    return r;
}

static int new_message(sd_bus *bus, const struct fwuab_call *call, const char *destination, sd_bus_message **message)
{
    char path[sizeof FWUAB_PATH "/component/255"] = FWUAB_PATH;
    if (call->component >= 0) {
        char digits[4] = { 0 };
        unsigned id = (unsigned)call->component & 0xffu;
        size_t n = id > 99 ? 3 : id > 9 ? 2 : 1;
        for (size_t i = n; i > 0; i--, id /= 10) {
            digits[i - 1] = (char)('0' + (int)(id % 10));
        }
        strcpy(path + sizeof FWUAB_PATH - 1, "/component/");
        strcat(path, digits);
    }
    int r = sd_bus_message_new_method_call(bus, message, destination, path, call->interface, call->method);
    if (r >= 0 && call->arguments != NULL) {
        r = call->arguments(*message, call);
    }
    return r;
}

/* Makes one call. *gone tells that nobody has the destination's name: the call was not delivered. */
static psa_status_t call_once(struct connection *c, const struct fwuab_call *call, const char *destination, int *gone, sd_bus_message **answer)
{
    sd_bus_message *message = NULL, *got = NULL;
    int r = new_message(c->bus, call, destination, &message);
    if (r >= 0) {
        r = exchange(c->bus, message, &got);
    }
    sd_bus_message_unref(message);
    if (r < 0) {
        disconnect(c);
        return fwuab_status_of_errno(r);
    }
    const sd_bus_error *error = sd_bus_message_get_error(got);
    psa_status_t status = PSA_SUCCESS;
    if (error != NULL) {
        *gone = sd_bus_error_has_name(error, SD_BUS_ERROR_SERVICE_UNKNOWN) || sd_bus_error_has_name(error, SD_BUS_ERROR_NAME_HAS_NO_OWNER);
        status = fwuab_status_of(error->name);
    } else if (!sd_bus_message_has_signature(got, call->returns)) {
        status = PSA_ERROR_COMMUNICATION_FAILURE;
    }
    if (status != PSA_SUCCESS) {
        sd_bus_message_unref(got);
        return status;
    }
    *answer = got;
    return PSA_SUCCESS;
}

static int append_manager(sd_bus_message *message, const struct fwuab_call *call)
{
    (void)call;
    return sd_bus_message_append(message, "s", FWUAB_MANAGER);
}

/* Reads the properties that the constants of the header have to fit. What is missing stays as it is. */
static int read_limits(sd_bus_message *answer, uint32_t *alignment, uint32_t *largest)
{
    int r = sd_bus_message_enter_container(answer, 'a', "{sv}");
    while (r >= 0 && (r = sd_bus_message_enter_container(answer, 'e', "sv")) > 0) {
        const char *name = NULL;
        r = sd_bus_message_read(answer, "s", &name);
        if (r >= 0) {
            uint32_t *into = strcmp(name, "WriteAlignment") == 0 ? alignment : strcmp(name, "MaxWriteSize") == 0 ? largest : NULL;
            r = into != NULL ? sd_bus_message_read(answer, "v", "u", into) : sd_bus_message_skip(answer, "v");
        }
        if (r >= 0) {
            r = sd_bus_message_exit_container(answer);
        }
    }
    return r;
}

static int fits(uint32_t alignment, uint32_t largest)
{
    const uint32_t ours = UINT32_C(1) << PSA_FWU_LOG2_WRITE_ALIGN;
    return alignment != 0 && ours % alignment == 0 && largest >= PSA_FWU_MAX_WRITE_SIZE;
}

/* Finds the service, which starts it where the bus knows how, and looks whether it fits. */
static psa_status_t find_service(struct connection *c)
{
    const struct fwuab_call properties = {
        .interface = "org.freedesktop.DBus.Properties", .method = "GetAll", .component = -1, .returns = "a{sv}", .arguments = append_manager,
    };
    sd_bus_message *answer = NULL;
    int gone = 0;
    psa_status_t status = call_once(c, &properties, FWUAB_NAME, &gone, &answer);
    if (status != PSA_SUCCESS) {
        return status;
    }
    uint32_t alignment = 0, largest = 0;
    const char *sender = sd_bus_message_get_sender(answer);
    if (read_limits(answer, &alignment, &largest) < 0 || sender == NULL || strlen(sender) >= sizeof c->owner) {
        status = PSA_ERROR_COMMUNICATION_FAILURE;
    } else if (!fits(alignment, largest)) {
        status = PSA_ERROR_NOT_SUPPORTED;
    } else {
        strcpy(c->owner, sender);
    }
    sd_bus_message_unref(answer);
    return status;
}

static psa_status_t ask(const struct fwuab_call *call, sd_bus_message **answer)
{
    struct connection *c = of_thread();
    if (c == NULL) {
        return PSA_ERROR_INSUFFICIENT_MEMORY;
    }
    int r = connect_bus(c);
    if (r < 0) {
        return fwuab_status_of_errno(r);
    }
    int known = c->owner[0] != '\0';
    for (;;) {
        if (c->owner[0] == '\0') {
            psa_status_t status = find_service(c);
            if (status != PSA_SUCCESS) {
                return status;
            }
        }
        int gone = 0;
        psa_status_t status = call_once(c, call, c->owner, &gone, answer);
        if (gone) {
            c->owner[0] = '\0';
        }
        if (!gone || !known) {
            return status;
        }
        known = 0;
    }
}

psa_status_t fwuab_ask(const struct fwuab_call *call, sd_bus_message **answer)
{
    int before;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before); /* what was allocated for a call would be lost */
    psa_status_t status = ask(call, answer);
    pthread_setcancelstate(before, NULL);
    return status;
}
