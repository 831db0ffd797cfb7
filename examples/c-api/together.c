/* Updates several components at once, all or none: together ID FILE [ID FILE]... Specification, appendix B.4. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <psa/update.h>

static unsigned char block[PSA_FWU_MAX_WRITE_SIZE];

/* Prepares an image. If that fails, the component is as it was. */
static psa_status_t prepare(psa_fwu_component_t id, const char *name)
{
    FILE *f = fopen(name, "rb");
    if (f == NULL) {
        return PSA_ERROR_INVALID_ARGUMENT;
    }
    psa_status_t status = psa_fwu_start(id, NULL, 0);
    if (status < 0) {
        fclose(f);
        return status;
    }
    size_t offset = 0, n;
    while (status >= 0 && (n = fread(block, 1, sizeof block, f)) > 0) {
        status = psa_fwu_write(id, offset, block, n);
        offset += n;
    }
    if (status >= 0 && ferror(f)) {
        status = PSA_ERROR_GENERIC_ERROR;
    }
    fclose(f);
    if (status >= 0) {
        status = psa_fwu_finish(id);
    }
    if (status < 0) {
        psa_fwu_cancel(id);
        psa_fwu_clean(id);
    }
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 3 || argc % 2 == 0) {
        fprintf(stderr, "usage: together ID FILE [ID FILE]...\n");
        return 2;
    }
    psa_status_t status = PSA_SUCCESS;
    int prepared = 1;
    while (status >= 0 && prepared < argc) {
        status = prepare((psa_fwu_component_t)strtoul(argv[prepared], NULL, 10), argv[prepared + 1]);
        if (status >= 0) {
            prepared += 2;
        }
    }
    if (status >= 0) {
        status = psa_fwu_install();
    }
    if (status < 0) {
        while (prepared > 1) {
            prepared -= 2;
            psa_fwu_component_t id = (psa_fwu_component_t)strtoul(argv[prepared], NULL, 10);
            psa_fwu_cancel(id);
            psa_fwu_clean(id);
        }
    }
    if (status == PSA_SUCCESS_REBOOT) {
        printf("installed by a reboot\n");
        status = psa_fwu_request_reboot();
    }
    if (status < 0) {
        fprintf(stderr, "status %" PRId32 "\n", status);
        return 1;
    }
    return 0;
}
