/* Null pointers, zero sizes and offsets: arguments ID, of a component that is READY and has no manifest. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "psa/update.h"

static int failures;

static void is(const char *what, psa_status_t got, psa_status_t want)
{
    if (got != want) {
        fprintf(stderr, "%s: %" PRId32 ", want %" PRId32 "\n", what, got, want);
        failures++;
    }
}

int main(int argc, char **argv)
{
    static unsigned char block[PSA_FWU_MAX_WRITE_SIZE + 1];
    const size_t align = (size_t)1 << PSA_FWU_LOG2_WRITE_ALIGN;
    psa_fwu_component_t id = (psa_fwu_component_t)(argc > 1 ? atoi(argv[1]) : 0);
    psa_fwu_component_info_t info, zero;
    memset(&zero, 0, sizeof zero);
    memset(&info, 0xff, sizeof info);

    is("query into nothing", psa_fwu_query(id, NULL), PSA_ERROR_INVALID_ARGUMENT);
    is("query of no component", psa_fwu_query(255, &info), PSA_ERROR_DOES_NOT_EXIST);
    if (memcmp(&info, &zero, sizeof info) != 0) {
        fprintf(stderr, "query that failed left something behind\n");
        failures++;
    }
    is("null manifest with a size", psa_fwu_start(id, NULL, 1), PSA_ERROR_INVALID_ARGUMENT);
    is("manifest of size 0", psa_fwu_start(id, block, 0), PSA_ERROR_INVALID_ARGUMENT);
    is("manifest too large", psa_fwu_start(id, block, SIZE_MAX), PSA_ERROR_INVALID_ARGUMENT);
    is("manifest for a component without", psa_fwu_start(id, block, 32), PSA_ERROR_INVALID_ARGUMENT);
    is("manifest as large as a block", psa_fwu_start(id, block, PSA_FWU_MAX_WRITE_SIZE), PSA_ERROR_INVALID_ARGUMENT);
    is("write in READY", psa_fwu_write(id, 0, block, 1), PSA_ERROR_BAD_STATE);
    is("start", psa_fwu_start(id, NULL, 0), PSA_SUCCESS);
    is("null block", psa_fwu_write(id, 0, NULL, 1), PSA_ERROR_INVALID_ARGUMENT);
    is("no block", psa_fwu_write(id, 0, NULL, 0), PSA_ERROR_INVALID_ARGUMENT);
    is("empty block", psa_fwu_write(id, 0, block, 0), PSA_ERROR_INVALID_ARGUMENT);
    is("block too large", psa_fwu_write(id, 0, block, sizeof block), PSA_ERROR_INVALID_ARGUMENT);
    is("huge block", psa_fwu_write(id, 0, block, SIZE_MAX), PSA_ERROR_INVALID_ARGUMENT);
    is("offset unaligned", psa_fwu_write(id, align / 2, block, 1), PSA_ERROR_INVALID_ARGUMENT);
    is("offset highest", psa_fwu_write(id, SIZE_MAX, block, 1), PSA_ERROR_INVALID_ARGUMENT);
    is("offset highest that is aligned", psa_fwu_write(id, SIZE_MAX - (align - 1), block, align), PSA_ERROR_INVALID_ARGUMENT);
#if SIZE_MAX > UINT32_MAX
    is("offset whose low half would do", psa_fwu_write(id, (size_t)UINT32_MAX + 1, block, align), PSA_ERROR_INVALID_ARGUMENT);
#endif
    /* A block of the largest size, misaligned in memory; then blocks with gaps, from the end to the beginning, and the rest. */
    is("largest block", psa_fwu_write(id, 0, block + 1, PSA_FWU_MAX_WRITE_SIZE), PSA_SUCCESS);
    is("a block behind a gap", psa_fwu_write(id, 6 * align, block, 100), PSA_SUCCESS);
    is("a block before it", psa_fwu_write(id, 2 * align, block, align), PSA_SUCCESS);
    is("the first once more", psa_fwu_write(id, 0, block, align), PSA_SUCCESS);
    is("query", psa_fwu_query(id, &info), PSA_SUCCESS);
    is("state", (psa_status_t)info.state, PSA_FWU_WRITING);
    is("finish", psa_fwu_finish(id), PSA_SUCCESS);
    is("accept", psa_fwu_accept(), PSA_ERROR_BAD_STATE);
    is("reject", psa_fwu_reject(PSA_ERROR_GENERIC_ERROR), PSA_ERROR_BAD_STATE);
    is("cancel", psa_fwu_cancel(id), PSA_SUCCESS);
    is("clean", psa_fwu_clean(id), PSA_SUCCESS);
    is("clean in READY", psa_fwu_clean(id), PSA_ERROR_BAD_STATE);
    is("install of nothing", psa_fwu_install(), PSA_ERROR_BAD_STATE);
    return failures != 0;
}
