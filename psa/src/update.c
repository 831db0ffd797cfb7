/* The functions of the API. The service judges the arguments; what is refused here is what cannot be put to it. */
#include <string.h>

#include "fwuab.h"

/* Largest manifest, in bytes: the service looks at none that is larger. */
#define MAX_MANIFEST_SIZE PSA_FWU_MAX_WRITE_SIZE

static int append_options(sd_bus_message *message, const struct fwuab_call *call)
{
    (void)call;
    return sd_bus_message_append(message, "a{sv}", 0);
}

static int append_data(sd_bus_message *message, const struct fwuab_call *call)
{
    return sd_bus_message_append_array(message, 'y', call->data, call->size);
}

static int append_start(sd_bus_message *message, const struct fwuab_call *call)
{
    int r = append_data(message, call);
    return r < 0 ? r : append_options(message, call);
}

static int append_write(sd_bus_message *message, const struct fwuab_call *call)
{
    int r = sd_bus_message_append(message, "t", (uint64_t)call->offset);
    return r < 0 ? r : append_data(message, call);
}

static int append_reject(sd_bus_message *message, const struct fwuab_call *call)
{
    int r = sd_bus_message_append(message, "i", call->error);
    return r < 0 ? r : append_options(message, call);
}

/* Makes a call that answers with nothing, or with a status. */
static psa_status_t make(const struct fwuab_call *call)
{
    sd_bus_message *answer = NULL;
    psa_status_t status = fwuab_ask(call, &answer);
    if (status == PSA_SUCCESS && call->returns[0] == 'i') {
        /* An error does not come as an answer: such a service is not to be understood. */
        if (sd_bus_message_read(answer, "i", &status) < 0 || status < 0) {
            status = PSA_ERROR_COMMUNICATION_FAILURE;
        }
    }
    sd_bus_message_unref(answer);
    return status;
}

static psa_status_t decide(const char *method, psa_status_t error, int (*arguments)(sd_bus_message *, const struct fwuab_call *))
{
    const struct fwuab_call call = {
        .interface = FWUAB_MANAGER, .method = method, .component = -1, .returns = "i", .arguments = arguments, .error = error,
    };
    return make(&call);
}

static psa_status_t prepare(psa_fwu_component_t component, const char *method, int (*arguments)(sd_bus_message *, const struct fwuab_call *))
{
    const struct fwuab_call call = {
        .interface = FWUAB_COMPONENT, .method = method, .component = component, .returns = "", .arguments = arguments,
    };
    return make(&call);
}

psa_status_t psa_fwu_start(psa_fwu_component_t component, const void *manifest, size_t manifest_size)
{
    /* Null and 0 is no manifest; one alone says nothing, and an empty manifest is not a valid one. */
    if ((manifest == NULL) != (manifest_size == 0) || manifest_size > MAX_MANIFEST_SIZE) {
        return PSA_ERROR_INVALID_ARGUMENT;
    }
    const struct fwuab_call call = {
        .interface = FWUAB_COMPONENT, .method = "Start", .component = component, .returns = "", .arguments = append_start,
        .data = manifest, .size = manifest_size,
    };
    return make(&call);
}

psa_status_t psa_fwu_write(psa_fwu_component_t component, size_t image_offset, const void *block, size_t block_size)
{
    const size_t mask = ((size_t)1 << PSA_FWU_LOG2_WRITE_ALIGN) - 1;
    if ((image_offset & mask) != 0 || block == NULL || block_size == 0 || block_size > PSA_FWU_MAX_WRITE_SIZE) {
        return PSA_ERROR_INVALID_ARGUMENT;
    }
    const struct fwuab_call call = {
        .interface = FWUAB_COMPONENT, .method = "Write", .component = component, .returns = "", .arguments = append_write,
        .offset = image_offset, .data = block, .size = block_size,
    };
    return make(&call);
}

psa_status_t psa_fwu_finish(psa_fwu_component_t component)
{
    return prepare(component, "Finish", append_options);
}

psa_status_t psa_fwu_cancel(psa_fwu_component_t component)
{
    return prepare(component, "Cancel", NULL);
}

psa_status_t psa_fwu_clean(psa_fwu_component_t component)
{
    return prepare(component, "Clean", append_options);
}

psa_status_t psa_fwu_install(void)
{
    return decide("Install", PSA_SUCCESS, append_options);
}

psa_status_t psa_fwu_accept(void)
{
    return decide("Accept", PSA_SUCCESS, append_options);
}

psa_status_t psa_fwu_reject(psa_status_t error)
{
    return decide("Reject", error, append_reject);
}

psa_status_t psa_fwu_request_reboot(void)
{
    const struct fwuab_call call = {
        .interface = FWUAB_MANAGER, .method = "RequestReboot", .component = -1, .returns = "", .arguments = append_options,
    };
    return make(&call);
}
