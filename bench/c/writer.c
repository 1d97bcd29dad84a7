/* writer EVENTS LINES PER_WRITE: writes LINES lines of 200 bytes to standard
   output, PER_WRITE of them at a time. It appends a line to the file EVENTS
   before and after, then sleeps for ever. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "event.h"

enum { LINE = 200, MOST = 1000 };

static int tell(const char *path)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    char line[EVENT_SIZE + 1];
    snprintf(line, sizeof line, EVENT_FORMAT, getpid(), now.tv_sec * 1000000000LL + now.tv_nsec);
    int events = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (events < 0 || write(events, line, EVENT_SIZE) != EVENT_SIZE)
        return -1;
    return close(events);
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    long lines = atol(argv[2]), per_write = atol(argv[3]);
    if (per_write < 1 || per_write > MOST)
        return 2;
    static char block[LINE * MOST];
    memset(block, 'x', sizeof block);
    for (long line = 1; line <= MOST; line++)
        block[line * LINE - 1] = '\n';

    if (tell(argv[1]) < 0)
        return 1;
    for (long written = 0; written < lines; written += per_write) {
        size_t left = LINE * (size_t)per_write;
        while (left > 0) {
            ssize_t done = write(1, block + LINE * (size_t)per_write - left, left);
            if (done < 0)
                return 1;
            left -= (size_t)done;
        }
    }
    if (tell(argv[1]) < 0)
        return 1;
    for (;;)
        pause();
}
