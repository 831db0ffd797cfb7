/* Updates one component with an image of any size, block by block: many-blocks ID FILE [MANIFEST]. Specification, appendix B.3. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <psa/update.h>

static unsigned char block[PSA_FWU_MAX_WRITE_SIZE];

/* Writes the file in full blocks; the last may be shorter. So every offset is a multiple of the alignment. */
static psa_status_t write_file(psa_fwu_component_t id, FILE *f)
{
    psa_status_t status = PSA_SUCCESS;
    size_t offset = 0, n;
    while (status >= 0 && (n = fread(block, 1, sizeof block, f)) > 0) {
        status = psa_fwu_write(id, offset, block, n);
        offset += n;
    }
    return status >= 0 && ferror(f) ? PSA_ERROR_GENERIC_ERROR : status;
}

/* Begins with a manifest, if there is one in a file of its own. */
static psa_status_t start(psa_fwu_component_t id, const char *manifest)
{
    if (manifest == NULL) {
        return psa_fwu_start(id, NULL, 0);
    }
    FILE *f = fopen(manifest, "rb");
    if (f == NULL) {
        return PSA_ERROR_INVALID_ARGUMENT;
    }
    size_t n = fread(block, 1, sizeof block, f);
    fclose(f);
    return psa_fwu_start(id, block, n);
}

static psa_status_t update(psa_fwu_component_t id, FILE *f, const char *manifest)
{
    psa_status_t status = start(id, manifest);
    if (status < 0) {
        return status;
    }
    status = write_file(id, f);
    if (status >= 0) {
        status = psa_fwu_finish(id);
    }
    if (status >= 0) {
        status = psa_fwu_install();
    }
    if (status < 0) {
        psa_fwu_cancel(id);
    }
    if (status <= 0) {
        psa_fwu_clean(id); /* the image that failed; or, where no reboot is needed, the one that was replaced */
    }
    return status;
}

int main(int argc, char **argv)
{
    FILE *f = argc == 3 || argc == 4 ? fopen(argv[2], "rb") : NULL;
    if (f == NULL) {
        fprintf(stderr, "usage: many-blocks ID FILE [MANIFEST]\n");
        return 2;
    }
    psa_status_t status = update((psa_fwu_component_t)strtoul(argv[1], NULL, 10), f, argc == 4 ? argv[3] : NULL);
    fclose(f);
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
