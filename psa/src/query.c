/* psa_fwu_query: what the service answers, in the types of the API. */
#include <string.h>

#include "fwuab.h"

/* Stores a string where it fits as a whole. */
static void store(char *into, size_t room, const char *s)
{
    size_t n = strlen(s);
    if (n < room) {
        memcpy(into, s, n + 1);
    }
}

/* Stores as many characters of a text in UTF-8 as there is room for. */
static void store_text(char *into, size_t room, const char *s)
{
    size_t n = strlen(s);
    if (n >= room) {
        n = room - 1;
        while (n > 0 && ((unsigned char)s[n] & 0xc0u) == 0x80u) { /* in the middle of a character */
            n--;
        }
    }
    memcpy(into, s, n);
    into[n] = '\0';
}

static int read_number(sd_bus_message *answer, uint64_t *into)
{
    return sd_bus_message_read(answer, "v", "t", into);
}

static int read_string(sd_bus_message *answer, char *into, size_t room)
{
    const char *s = "";
    int r = sd_bus_message_read(answer, "v", "s", &s);
    if (r >= 0) {
        store(into, room, s);
    }
    return r;
}

static int read_reason(sd_bus_message *answer, psa_fwu_impl_info_t *impl)
{
    const char *code = "", *text = "";
    int r = sd_bus_message_read(answer, "v", "(ss)", &code, &text);
    if (r >= 0) {
        store(impl->reason, sizeof impl->reason, code);
        store_text(impl->reason_text, sizeof impl->reason_text, text);
    }
    return r;
}

static int read_version(sd_bus_message *answer, psa_fwu_image_version_t *into)
{
    return sd_bus_message_read(answer, "v", "(yyqu)", &into->major, &into->minor, &into->patch, &into->build);
}

/* Reads which components stand in the way. */
static int read_blocked_by(sd_bus_message *answer, psa_fwu_impl_info_t *impl)
{
    const void *ids = NULL;
    size_t n = 0;
    int r = sd_bus_message_enter_container(answer, 'v', "ay");
    if (r >= 0) {
        r = sd_bus_message_read_array(answer, 'y', &ids, &n);
    }
    if (r >= 0) {
        r = sd_bus_message_exit_container(answer);
    }
    if (r >= 0 && n > 0) {
        impl->blocked_count = (uint8_t)(n < sizeof impl->blocked_by ? n : sizeof impl->blocked_by);
        memcpy(impl->blocked_by, ids, impl->blocked_count);
    }
    return r;
}

static int read_text(sd_bus_message *answer, char *into, size_t room)
{
    const char *s = "";
    int r = sd_bus_message_read(answer, "v", "s", &s);
    if (r >= 0) {
        store_text(into, room, s);
    }
    return r;
}

/* Reads the value of one key of the image in the second slot. */
static int read_second(sd_bus_message *answer, const char *name, psa_fwu_impl_info_t *impl)
{
    if (strcmp(name, "version") == 0) {
        return read_version(answer, &impl->second_version);
    }
    if (strcmp(name, "digest") == 0) {
        return read_string(answer, impl->second_digest, sizeof impl->second_digest);
    }
    if (strcmp(name, "manifest") == 0) {
        return read_string(answer, impl->second_manifest, sizeof impl->second_manifest);
    }
    if (strcmp(name, "sequence") == 0) {
        return read_number(answer, &impl->second_sequence);
    }
    if (strcmp(name, "signer") == 0) {
        return read_text(answer, impl->second_signer, sizeof impl->second_signer);
    }
    if (strcmp(name, "by") == 0) {
        return read_text(answer, impl->started_by, sizeof impl->started_by);
    }
    if (strcmp(name, "by_since") == 0) {
        return read_number(answer, &impl->started);
    }
    if (strcmp(name, "blocked") == 0) {
        return read_text(answer, impl->blocked_text, sizeof impl->blocked_text);
    }
    if (strcmp(name, "blocked_by") == 0) {
        return read_blocked_by(answer, impl);
    }
    return sd_bus_message_skip(answer, "v");
}

typedef int (*reader)(sd_bus_message *answer, const char *name, psa_fwu_impl_info_t *impl);

/* Reads an a{sv}, each value with read. */
static int read_dictionary(sd_bus_message *answer, reader read, psa_fwu_impl_info_t *impl)
{
    int r = sd_bus_message_enter_container(answer, 'a', "{sv}");
    while (r >= 0 && (r = sd_bus_message_enter_container(answer, 'e', "sv")) > 0) {
        const char *name = NULL;
        r = sd_bus_message_read(answer, "s", &name);
        if (r >= 0) {
            r = read(answer, name, impl);
        }
        if (r >= 0) {
            r = sd_bus_message_exit_container(answer);
        }
    }
    return r < 0 ? r : sd_bus_message_exit_container(answer);
}

static int read_all_of_second(sd_bus_message *answer, psa_fwu_impl_info_t *impl)
{
    int r = sd_bus_message_enter_container(answer, 'v', "a{sv}");
    if (r >= 0) {
        r = read_dictionary(answer, read_second, impl);
    }
    return r < 0 ? r : sd_bus_message_exit_container(answer);
}

/* Reads the value of one key. Keys that are not known are left out: a later service has more. */
static int read_value(sd_bus_message *answer, const char *name, psa_fwu_impl_info_t *impl)
{
    const struct {
        const char *name;
        uint64_t *into;
    } numbers[] = {
        { "written", &impl->written }, { "image_size", &impl->image_size }, { "sequence", &impl->sequence }, { "since", &impl->since },
        { "received", &impl->received }, { "equal", &impl->equal }, { "zeroed", &impl->zeroed }, { "stored", &impl->stored },
        { "read_back", &impl->read_back },
    };
    const struct {
        const char *name;
        char *into;
        size_t room;
    } strings[] = {
        { "manifest_digest", impl->manifest_digest, sizeof impl->manifest_digest },
        { "digest", impl->digest, sizeof impl->digest },
        { "active_slot", impl->active_slot, sizeof impl->active_slot },
        { "second_slot", impl->second_slot, sizeof impl->second_slot },
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (strcmp(name, numbers[i].name) == 0) {
            return read_number(answer, numbers[i].into);
        }
    }
    for (size_t i = 0; i < sizeof strings / sizeof strings[0]; i++) {
        if (strcmp(name, strings[i].name) == 0) {
            return read_string(answer, strings[i].into, strings[i].room);
        }
    }
    if (strcmp(name, "reason") == 0) {
        return read_reason(answer, impl);
    }
    if (strcmp(name, "second") == 0) {
        return read_all_of_second(answer, impl);
    }
    return sd_bus_message_skip(answer, "v");
}

static int read_info(sd_bus_message *answer, psa_fwu_component_info_t *info)
{
    int r = sd_bus_message_read(answer, "yi(yyqu)tuu", &info->state, &info->error,
                                &info->version.major, &info->version.minor, &info->version.patch, &info->version.build,
                                &info->impl.max_size, &info->flags, &info->location);
    if (r < 0) {
        return r;
    }
    info->max_size = info->impl.max_size > UINT32_MAX ? UINT32_MAX : (uint32_t)info->impl.max_size;
    return read_dictionary(answer, read_value, &info->impl);
}

psa_status_t psa_fwu_query(psa_fwu_component_t component, psa_fwu_component_info_t *info)
{
    if (info == NULL) {
        return PSA_ERROR_INVALID_ARGUMENT;
    }
    memset(info, 0, sizeof *info);
    const struct fwuab_call call = {
        .interface = FWUAB_COMPONENT, .method = "Query", .component = component, .returns = "yi(yyqu)tuua{sv}",
    };
    sd_bus_message *answer = NULL;
    psa_status_t status = fwuab_ask(&call, &answer);
    if (status == PSA_SUCCESS && read_info(answer, info) < 0) {
        memset(info, 0, sizeof *info);
        status = PSA_ERROR_COMMUNICATION_FAILURE;
    }
    sd_bus_message_unref(answer);
    return status;
}
