/* Gives up every update and makes every component ready. To be run again after a reboot, if it asks for one. Specification, appendix B.5. */
#include <inttypes.h>
#include <stdio.h>

#include <psa/update.h>

/* Returns the first error. */
static psa_status_t clean(psa_fwu_component_t id)
{
    psa_fwu_component_info_t info;
    psa_status_t status = psa_fwu_query(id, &info);
    if (status == PSA_ERROR_DOES_NOT_EXIST) {
        return PSA_SUCCESS;
    }
    if (status < 0) {
        return status;
    }
    switch (info.state) {
    case PSA_FWU_WRITING:
    case PSA_FWU_CANDIDATE:
        status = psa_fwu_cancel(id);
        return status < 0 ? status : psa_fwu_clean(id);
    case PSA_FWU_FAILED:
    case PSA_FWU_UPDATED:
        return psa_fwu_clean(id);
    default:
        return PSA_SUCCESS;
    }
}

int main(void)
{
    psa_status_t status = psa_fwu_reject(PSA_SUCCESS);
    if (status == PSA_SUCCESS_REBOOT) {
        printf("given up by a reboot\n");
        status = psa_fwu_request_reboot();
    } else if (status >= 0 || status == PSA_ERROR_BAD_STATE) { /* BAD_STATE: nothing was staged or in trial */
        status = PSA_SUCCESS;
        for (unsigned id = 0; id <= UINT8_MAX && status >= 0; id++) {
            status = clean((psa_fwu_component_t)id);
        }
    }
    if (status < 0) {
        fprintf(stderr, "status %" PRId32 "\n", status);
        return 1;
    }
    return 0;
}
