/* Writes numbered lines with times, a hundred a second, and notes in the file
 * `count-LIFE` how many it has written, so that the end of a life can be told.
 * A life is `PID-MILLISECONDS`, as pids come again. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static long long milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int main(void) {
    const char *failure = getenv("FAILURE");
    if (failure && !strcmp(failure, "throw")) {
        fputs("a bad release\n", stderr);
        return 3;
    }
    char life[48], name[64];
    snprintf(life, sizeof life, "%ld-%lld", (long)getpid(), milliseconds());
    snprintf(name, sizeof name, "count-%s", life);
    int file = open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (file < 0 || ftruncate(file, sizeof(uint64_t)) != 0)
        return 1;
    volatile uint64_t *count = mmap(NULL, sizeof *count, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (count == MAP_FAILED)
        return 1;
    for (uint64_t number = 1;; number++) {
        struct timespec pause = {0, 10000000};
        char line[128];
        int length =
            snprintf(line, sizeof line, "line %s %llu %lld\n", life, (unsigned long long)number, milliseconds());
        if (write(1, line, length) != length)
            return 1;
        *count = number;
        nanosleep(&pause, NULL);
    }
}
