/*
 * Many threads that come and go, signals that interrupt what they wait for, pthread_cancel, and a child of fork: threads ID, of a component that is READY and has no manifest.
 */
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "psa/update.h"

enum { THREADS = 8, ROUNDS = 2, CALLS = 20, BLOCK = 1 << PSA_FWU_LOG2_WRITE_ALIGN };

static psa_fwu_component_t id;
static atomic_int failures;
static atomic_int interruptions;

static void tick(int signal_number)
{
    (void)signal_number;
    interruptions++;
}

static void is(const char *what, psa_status_t got, psa_status_t want)
{
    if (got != want) {
        fprintf(stderr, "%s: %" PRId32 ", want %" PRId32 "\n", what, got, want);
        failures++;
    }
}

static void *work(void *number)
{
    unsigned char block[BLOCK];
    size_t n = *(const size_t *)number;
    memset(block, (int)n, sizeof block);
    for (size_t i = 0; i < CALLS; i++) {
        psa_fwu_component_info_t info;
        is("query", psa_fwu_query(id, &info), PSA_SUCCESS);
        is("state", (psa_status_t)info.state, PSA_FWU_WRITING);
        is("write", psa_fwu_write(id, n * BLOCK, block, sizeof block), PSA_SUCCESS);
    }
    return NULL;
}

static void all_threads(void)
{
    pthread_t thread[THREADS];
    size_t number[THREADS];
    for (size_t i = 0; i < THREADS; i++) {
        number[i] = i;
        if (pthread_create(&thread[i], NULL, work, &number[i]) != 0) {
            abort();
        }
    }
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
    }
}

/* A thread that is to end has its answer first. */
static void *to_end(void *answered)
{
    psa_fwu_component_info_t info;
    pthread_cancel(pthread_self());
    is("query of a thread that is to end", psa_fwu_query(id, &info), PSA_SUCCESS);
    *(int *)answered = 1;
    return NULL;
}

static void thread_to_end(void)
{
    pthread_t thread;
    int answered = 0;
    if (pthread_create(&thread, NULL, to_end, &answered) != 0) {
        abort();
    }
    pthread_join(thread, NULL);
    is("a thread that is to end has its answer", answered, 1);
}

/* A child has a connection of its own, and takes nothing from that of its parent. */
static void child(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        psa_fwu_component_info_t info;
        is("query of a child", psa_fwu_query(id, &info), PSA_SUCCESS);
        _exit(failures != 0);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0) { /* a tick */
    }
    is("child", status, 0);
}

int main(int argc, char **argv)
{
    id = (psa_fwu_component_t)(argc > 1 ? atoi(argv[1]) : 0);
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = tick; /* without SA_RESTART */
    sigaction(SIGALRM, &action, NULL);
    const struct itimerval often = { { 0, 5000 }, { 0, 5000 } };
    setitimer(ITIMER_REAL, &often, NULL);

    is("start", psa_fwu_start(id, NULL, 0), PSA_SUCCESS);
    for (int i = 0; i < ROUNDS; i++) {
        all_threads();
        child();
    }
    thread_to_end();
    is("cancel", psa_fwu_cancel(id), PSA_SUCCESS);
    is("clean", psa_fwu_clean(id), PSA_SUCCESS);
    if (interruptions == 0) {
        fprintf(stderr, "nothing was interrupted\n");
        failures++;
    }
    return failures != 0;
}
