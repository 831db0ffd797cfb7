/* Updates one component with an image that fits into one block: one-block ID FILE. Specification, appendix B.2. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <psa/update.h>

static unsigned char image[PSA_FWU_MAX_WRITE_SIZE];

/* Reads a file that is not empty and fits; returns its size, 0 if that is not so. */
static size_t read_image(const char *name)
{
    FILE *f = fopen(name, "rb");
    if (f == NULL) {
        return 0;
    }
    size_t n = fread(image, 1, sizeof image, f);
    int whole = ferror(f) == 0 && fgetc(f) == EOF;
    fclose(f);
    return whole ? n : 0;
}

static psa_status_t update(psa_fwu_component_t id, size_t size)
{
    psa_status_t status = psa_fwu_start(id, NULL, 0);
    if (status < 0) {
        return status; /* nothing was begun: there is nothing to give up */
    }
    status = psa_fwu_write(id, 0, image, size);
    if (status >= 0) {
        status = psa_fwu_finish(id);
    }
    if (status >= 0) {
        status = psa_fwu_install();
    }
    if (status < 0) {
        psa_fwu_cancel(id); /* BAD_STATE if the service has given up already */
        psa_fwu_clean(id);
    }
    return status;
}

int main(int argc, char **argv)
{
    size_t size = argc == 3 ? read_image(argv[2]) : 0;
    if (size == 0) {
        fprintf(stderr, "usage: one-block ID FILE, of %u bytes at most\n", PSA_FWU_MAX_WRITE_SIZE);
        return 2;
    }
    psa_status_t status = update((psa_fwu_component_t)strtoul(argv[1], NULL, 10), size);
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
