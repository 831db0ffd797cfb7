/*
 * The API on standard input and output, for tests that are written in another language.
 *
 * A request is a line: the name of a function without psa_fwu_, then its arguments in decimal. Where the last one is a size, that many bytes follow the line; a
 * size of 0 stands for a null pointer. An answer is a line that begins with the status. psa_fwu_query has the members of the structure behind it,
 * in their order, strings in hexadecimal with an x before them.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "psa/update.h"

static void print_string(const char *s)
{
    printf(" x");
    for (; *s != '\0'; s++) {
        printf("%02x", (unsigned)(unsigned char)*s);
    }
}

static void query(psa_fwu_component_t id)
{
    psa_fwu_component_info_t info;
    psa_status_t status = psa_fwu_query(id, &info);
    printf("%" PRId32 " %u %" PRId32 " %u %u %u %" PRIu32 " %" PRIu32 " %" PRIu32 " %" PRIu32, status, (unsigned)info.state, info.error,
           (unsigned)info.version.major, (unsigned)info.version.minor, (unsigned)info.version.patch, info.version.build,
           info.max_size, info.flags, info.location);
    printf(" %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64, info.impl.written, info.impl.image_size, info.impl.sequence,
           info.impl.since, info.impl.max_size);
    printf(" %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64, info.impl.received, info.impl.equal, info.impl.zeroed, info.impl.stored,
           info.impl.read_back);
    print_string(info.impl.manifest_digest);
    print_string(info.impl.digest);
    print_string(info.impl.active_slot);
    print_string(info.impl.second_slot);
    print_string(info.impl.reason);
    print_string(info.impl.reason_text);
    printf(" %u %u %u %" PRIu32 " %" PRIu64 " %" PRIu64, (unsigned)info.impl.second_version.major, (unsigned)info.impl.second_version.minor,
           (unsigned)info.impl.second_version.patch, info.impl.second_version.build, info.impl.second_sequence, info.impl.started);
    print_string(info.impl.second_digest);
    print_string(info.impl.second_manifest);
    print_string(info.impl.second_signer);
    print_string(info.impl.started_by);
    print_string(info.impl.blocked_text);
    printf(" %u", (unsigned)info.impl.blocked_count);
    for (size_t i = 0; i < info.impl.blocked_count; i++) {
        printf(" %u", (unsigned)info.impl.blocked_by[i]);
    }
    printf("\n");
}

/* The bytes that follow a line; NULL if there are none. */
static void *read_bytes(size_t size)
{
    if (size == 0) {
        return NULL;
    }
    void *b = malloc(size);
    if (b == NULL || fread(b, 1, size, stdin) != size) {
        fprintf(stderr, "driver: %zu bytes were announced and did not come\n", size);
        exit(2);
    }
    return b;
}

static psa_status_t start(psa_fwu_component_t id, size_t size)
{
    void *manifest = read_bytes(size);
    psa_status_t status = psa_fwu_start(id, manifest, size);
    free(manifest);
    return status;
}

static psa_status_t write_block(psa_fwu_component_t id, size_t offset, size_t size)
{
    void *block = read_bytes(size);
    psa_status_t status = psa_fwu_write(id, offset, block, size);
    free(block);
    return status;
}

int main(void)
{
    char line[256];
    while (fgets(line, sizeof line, stdin) != NULL) {
        char name[32] = "";
        long long first = 0;
        unsigned long long second = 0, third = 0;
        if (sscanf(line, "%31s %lld %llu %llu", name, &first, &second, &third) < 1) {
            continue;
        }
        psa_fwu_component_t id = (psa_fwu_component_t)first;
        psa_status_t status;
        if (strcmp(name, "query") == 0) {
            query(id);
            fflush(stdout);
            continue;
        } else if (strcmp(name, "start") == 0) {
            status = start(id, (size_t)second);
        } else if (strcmp(name, "write") == 0) {
            status = write_block(id, (size_t)second, (size_t)third);
        } else if (strcmp(name, "finish") == 0) {
            status = psa_fwu_finish(id);
        } else if (strcmp(name, "cancel") == 0) {
            status = psa_fwu_cancel(id);
        } else if (strcmp(name, "clean") == 0) {
            status = psa_fwu_clean(id);
        } else if (strcmp(name, "install") == 0) {
            status = psa_fwu_install();
        } else if (strcmp(name, "accept") == 0) {
            status = psa_fwu_accept();
        } else if (strcmp(name, "reject") == 0) {
            status = psa_fwu_reject((psa_status_t)first);
        } else if (strcmp(name, "request_reboot") == 0) {
            status = psa_fwu_request_reboot();
        } else {
            fprintf(stderr, "driver: no function %s\n", name);
            return 2;
        }
        printf("%" PRId32 "\n", status);
        fflush(stdout);
    }
    return 0;
}
