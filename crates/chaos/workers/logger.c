/* Writes numbered lines with times, a hundred a second, and notes in the file
 * `count-LIFE` how many it has written, and when the last one, so that the end
 * of a life can be told. A life is `PID-MILLISECONDS`, as pids come again. */
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
    struct {
        uint64_t count, at;
    } volatile *last;
    if (file < 0 || ftruncate(file, sizeof *last) != 0)
        return 1;
    last = mmap(NULL, sizeof *last, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (last == MAP_FAILED)
        return 1;
    for (uint64_t number = 1;; number++) {
        struct timespec pause = {0, 10000000};
        char line[128];
        long long at = milliseconds();
        int length = snprintf(line, sizeof line, "line %s %llu %lld\n", life, (unsigned long long)number, at);
        if (write(1, line, length) != length)
            return 1;
        last->at = at;
        last->count = number;
        nanosleep(&pause, NULL);
    }
}
