/* What the files of the library share. Not installed. */
#ifndef FWUAB_H
#define FWUAB_H

#include <systemd/sd-bus.h>

/* The files are compiled with hidden visibility: what the API declares is what others may see. */
#pragma GCC visibility push(default)
#include "psa/update.h"
#pragma GCC visibility pop

/* One call to the service. It is data, because it may have to be put into a message twice. */
struct fwuab_call {
    const char *interface;
    const char *method;
    int component;       /* -1 for the manager */
    const char *returns; /* signature of the answer */
    int (*arguments)(sd_bus_message *message, const struct fwuab_call *call); /* appends them; NULL if there are none */
    psa_status_t error;
    size_t offset;
    const void *data;
    size_t size;
};

#define FWUAB_NAME "org.fwuab.FirmwareUpdate1"
#define FWUAB_PATH "/org/fwuab/FirmwareUpdate1"
#define FWUAB_MANAGER FWUAB_NAME ".Manager"
#define FWUAB_COMPONENT FWUAB_NAME ".Component"

/* Carries out a call. With PSA_SUCCESS, and only then, *answer is a message with the signature that the call returns, to be unreferenced by the caller. */
psa_status_t fwuab_ask(const struct fwuab_call *call, sd_bus_message **answer);

/* The status that a D-Bus error stands for. */
psa_status_t fwuab_status_of(const char *error_name);

/* The status that a negative errno of sd-bus stands for. */
psa_status_t fwuab_status_of_errno(int negative);

#endif /* FWUAB_H */
