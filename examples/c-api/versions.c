/* Prints the version of the active image of every component. Specification, appendix B.1. */
#include <inttypes.h>
#include <stdio.h>

#include <psa/update.h>

int main(void)
{
    /* The API does not tell which components there are. A client that does not know asks for all. */
    for (unsigned id = 0; id <= UINT8_MAX; id++) {
        psa_fwu_component_info_t info;
        psa_status_t status = psa_fwu_query((psa_fwu_component_t)id, &info);
        if (status == PSA_ERROR_DOES_NOT_EXIST) {
            continue;
        }
        if (status < 0) {
            fprintf(stderr, "component %u: status %" PRId32 "\n", id, status);
            return 1;
        }
        printf("%u: %u.%u.%u+%" PRIu32 "\n", id, (unsigned)info.version.major, (unsigned)info.version.minor, (unsigned)info.version.patch,
               info.version.build);
    }
    return 0;
}
