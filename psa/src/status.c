/* The one table from the names of D-Bus errors to status codes. A test compares it with that of the service. */
#include <errno.h>
#include <string.h>

#include "fwuab.h"

#define SERVICE FWUAB_NAME ".Error."
#define BUS "org.freedesktop.DBus.Error."

static const struct {
    const char *name;
    psa_status_t status;
} table[] = {
    { SERVICE "GenericError", PSA_ERROR_GENERIC_ERROR },
    { SERVICE "NotPermitted", PSA_ERROR_NOT_PERMITTED },
    { SERVICE "NotSupported", PSA_ERROR_NOT_SUPPORTED },
    { SERVICE "InvalidArgument", PSA_ERROR_INVALID_ARGUMENT },
    { SERVICE "BadState", PSA_ERROR_BAD_STATE },
    { SERVICE "DoesNotExist", PSA_ERROR_DOES_NOT_EXIST },
    { SERVICE "InsufficientMemory", PSA_ERROR_INSUFFICIENT_MEMORY },
    { SERVICE "InsufficientStorage", PSA_ERROR_INSUFFICIENT_STORAGE },
    { SERVICE "CommunicationFailure", PSA_ERROR_COMMUNICATION_FAILURE },
    { SERVICE "StorageFailure", PSA_ERROR_STORAGE_FAILURE },
    { SERVICE "InvalidSignature", PSA_ERROR_INVALID_SIGNATURE },
    { SERVICE "DependencyNeeded", PSA_ERROR_DEPENDENCY_NEEDED },
    { SERVICE "FlashAbuse", PSA_ERROR_FLASH_ABUSE },
    { SERVICE "InsufficientPower", PSA_ERROR_INSUFFICIENT_POWER },
    /* The caller was turned away. */
    { BUS "AccessDenied", PSA_ERROR_NOT_PERMITTED },
    { BUS "AuthFailed", PSA_ERROR_NOT_PERMITTED },
    { BUS "InteractiveAuthorizationRequired", PSA_ERROR_NOT_PERMITTED },
    /* The service is of another version. */
    { BUS "InvalidArgs", PSA_ERROR_NOT_SUPPORTED },
    { BUS "UnknownMethod", PSA_ERROR_NOT_SUPPORTED },
    { BUS "UnknownObject", PSA_ERROR_NOT_SUPPORTED },
    { BUS "UnknownInterface", PSA_ERROR_NOT_SUPPORTED },
    /* It does not run and could not be started, or went away. */
    { BUS "ServiceUnknown", PSA_ERROR_COMMUNICATION_FAILURE },
    { BUS "NameHasNoOwner", PSA_ERROR_COMMUNICATION_FAILURE },
    { BUS "Spawn.ServiceNotFound", PSA_ERROR_COMMUNICATION_FAILURE },
    { BUS "Spawn.ChildExited", PSA_ERROR_COMMUNICATION_FAILURE },
    { BUS "Spawn.Failed", PSA_ERROR_COMMUNICATION_FAILURE },
    { BUS "Spawn.ExecFailed", PSA_ERROR_COMMUNICATION_FAILURE },
    { BUS "Spawn.ChildSignaled", PSA_ERROR_COMMUNICATION_FAILURE },
    { BUS "Spawn.ServiceNotValid", PSA_ERROR_COMMUNICATION_FAILURE },
    { BUS "Spawn.FileInvalid", PSA_ERROR_COMMUNICATION_FAILURE },
    { BUS "NoReply", PSA_ERROR_COMMUNICATION_FAILURE },
    { BUS "Disconnected", PSA_ERROR_COMMUNICATION_FAILURE },
    { BUS "TimedOut", PSA_ERROR_COMMUNICATION_FAILURE },
    { BUS "Timeout", PSA_ERROR_COMMUNICATION_FAILURE },
};

psa_status_t fwuab_status_of(const char *error_name)
{
    for (size_t i = 0; error_name != NULL && i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(table[i].name, error_name) == 0) {
            return table[i].status;
        }
    }
    return PSA_ERROR_GENERIC_ERROR;
}

psa_status_t fwuab_status_of_errno(int negative)
{
    return negative == -ENOMEM ? PSA_ERROR_INSUFFICIENT_MEMORY : PSA_ERROR_COMMUNICATION_FAILURE;
}
