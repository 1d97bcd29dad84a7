/* reaper WORKER [ARGS…]: the floor, a parent that does nothing but start
   workers and start them again. Each line on standard input is a number of
   workers to add. SIGCHLD comes through a signalfd; a dead worker is reaped and
   another one spawned at once. At the end of standard input it kills all. */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_WORKERS 4096

extern char **environ;
static pid_t workers[MAX_WORKERS];
static int count;

static pid_t start(char **command)
{
    posix_spawnattr_t attributes;
    sigset_t none;
    pid_t pid;

    sigemptyset(&none);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    if (posix_spawn(&pid, command[0], NULL, &attributes, command, environ)) {
        perror("reaper: posix_spawn");
        exit(1);
    }
    return pid;
}

static void replace_dead(char **command)
{
    pid_t dead;
    while ((dead = waitpid(-1, NULL, WNOHANG)) > 0)
        for (int i = 0; i < count; i++)
            if (workers[i] == dead) {
                workers[i] = start(command);
                break;
            }
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;

    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    struct pollfd sources[] = {
        {.fd = STDIN_FILENO, .events = POLLIN},
        {.fd = signalfd(-1, &child, SFD_CLOEXEC), .events = POLLIN},
    };
    for (;;) {
        if (poll(sources, 2, -1) < 0)
            continue;
        if (sources[1].revents) {
            struct signalfd_siginfo signal;
            if (read(sources[1].fd, &signal, sizeof signal) == sizeof signal)
                replace_dead(argv + 1);
        }
        if (sources[0].revents) {
            char order[16] = {0};
            if (read(STDIN_FILENO, order, sizeof order - 1) <= 0)
                break;
            for (int more = atoi(order); more > 0 && count < MAX_WORKERS; more--)
                workers[count++] = start(argv + 1);
        }
    }
    for (int i = 0; i < count; i++)
        kill(workers[i], SIGKILL);
    return 0;
}
