/* What a pod's sandbox runs: nothing, until it is told to end. */
#include <signal.h>
#include <unistd.h>

static void end(int signal) {
    _exit(0 * signal);
}

int main(void) {
    signal(SIGTERM, end);
    signal(SIGINT, end);
    for (;;)
        pause();
}
