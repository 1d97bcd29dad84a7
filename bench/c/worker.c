/* worker EVENTS: the cheapest program to supervise. It appends a line to the
   file EVENTS as the first act of main(), then sleeps for ever. */
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "event.h"

int main(int argc, char **argv)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (argc < 2)
        return 2;

    char line[EVENT_SIZE + 1];
    snprintf(line, sizeof line, EVENT_FORMAT, getpid(), now.tv_sec * 1000000000LL + now.tv_nsec);
    int events = open(argv[1], O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (events < 0 || write(events, line, EVENT_SIZE) != EVENT_SIZE)
        return 1;
    close(events);
    for (;;)
        pause();
}
