/* An HTTP worker in C, linked statically. It serves the socket that it is
   given, one request at a time, and finishes the one at hand before it ends. */

#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static volatile sig_atomic_t stopping;

static void stop(int signal) {
    (void)signal;
    stopping = 1;
}

/* Tells the supervisor something (sd_notify(3)). */
static void notify(const char *message) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *name = getenv("NOTIFY_SOCKET");
    size_t length = name ? strlen(name) : 0;
    if (length == 0 || length >= sizeof address.sun_path)
        return;
    memcpy(address.sun_path, name, length);
    if (name[0] == '@')
        address.sun_path[0] = 0;
    int sender = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t size = offsetof(struct sockaddr_un, sun_path) + length;
    sendto(sender, message, strlen(message), 0, (struct sockaddr *)&address, size);
    close(sender);
}

/* Reads a request up to its empty line, and answers. */
static void serve(int client, const char *slot) {
    char head[4096];
    size_t length = 0;
    char body[64];
    int size = snprintf(body, sizeof body, "hello from slot %s, pid %d\n", slot, getpid());
    do {
        ssize_t got = read(client, head + length, sizeof head - 1 - length);
        if (got <= 0)
            return;
        length += got;
        head[length] = 0;
    } while (!strstr(head, "\r\n\r\n"));
    dprintf(client, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", size, body);
}

int main(void) {
    const char *slot = getenv("SUPERVISOR_INSTANCE");
    const char *listen_pid = getenv("LISTEN_PID");
    if (!slot || !listen_pid || atol(listen_pid) != getpid()) {
        fputs("no socket was passed: run this under the supervisor, with `listen`\n", stderr);
        return 1;
    }

    /* The signal comes only while we wait, never in the middle of a request. */
    sigset_t term, none;
    sigemptyset(&none);
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL);
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = stop}, NULL);

    notify("READY=1");
    while (!stopping) {
        /* The supervisor passes the sockets of `listen` from descriptor 3 on. */
        struct pollfd listener = {.fd = 3, .events = POLLIN};
        if (ppoll(&listener, 1, NULL, &none) != 1)
            continue;
        int client = accept(3, NULL, NULL);
        if (client >= 0) {
            serve(client, slot);
            close(client);
        }
    }
    return 0;
}
