/* A psa_fwu_finish that is ended by another thread: cancel ID, of a component that is WRITING. It waits for the end of its input before it cancels. */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "psa/update.h"

static psa_fwu_component_t id;
static psa_status_t finished;

static void *finish(void *unused)
{
    (void)unused;
    finished = psa_fwu_finish(id);
    return NULL;
}

int main(int argc, char **argv)
{
    id = (psa_fwu_component_t)(argc > 1 ? atoi(argv[1]) : 0);
    pthread_t thread;
    if (pthread_create(&thread, NULL, finish, NULL) != 0) {
        abort();
    }
    while (getchar() != EOF) {
    }
    psa_status_t cancelled = psa_fwu_cancel(id);
    pthread_join(thread, NULL);
    if (cancelled != PSA_SUCCESS || finished != PSA_ERROR_BAD_STATE) {
        fprintf(stderr, "cancel: %" PRId32 ", finish: %" PRId32 "\n", cancelled, finished);
        return 1;
    }
    return 0;
}
