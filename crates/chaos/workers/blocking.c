/* A static server that binds HOST and PORT for itself, waits in accept(2), and
 * answers one `GET /BYTES?MS` after another. It knows nothing of signals. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

static void pause_for(long milliseconds) {
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    while (nanosleep(&time, &time) != 0) {
    }
}

/* Reads up to the empty line that ends a request's head. */
static int read_head(int client, char *head, size_t size) {
    size_t length = 0;
    while (length < size - 1) {
        ssize_t got = read(client, head + length, size - 1 - length);
        if (got <= 0)
            return 0;
        length += got;
        head[length] = 0;
        if (strstr(head, "\r\n\r\n"))
            return 1;
    }
    return 0;
}

static void answer(int client) {
    char head[4096];
    if (!read_head(client, head, sizeof head))
        return;
    long bytes = 0, delay = 0;
    sscanf(head, "GET /%ld?%ld", &bytes, &delay);
    pause_for(delay);
    char who[128];
    int length = snprintf(who, sizeof who, "%s %s %ld %s\n", variable("SUPERVISOR_APP"),
                          variable("SUPERVISOR_INSTANCE"), (long)getpid(), variable("RELEASE"));
    long rest = bytes > length ? bytes - length : 0;
    dprintf(client, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %ld\r\n\r\n%s",
            length + rest, who);
    char block[4096];
    memset(block, 'x', sizeof block);
    while (rest > 0) {
        ssize_t sent = send(client, block, rest < (long)sizeof block ? rest : (long)sizeof block, MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        rest -= sent;
    }
}

int main(void) {
    const char *failure = variable("FAILURE");
    if (!strcmp(failure, "throw")) {
        fputs("a bad release\n", stderr);
        return 3;
    }
    while (!strcmp(failure, "silent"))
        pause();
    if (!strcmp(failure, "die")) {
        struct itimerval soon = {.it_value = {.tv_usec = 500000}};
        setitimer(ITIMER_REAL, &soon, NULL);
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(variable("PORT")))};
    inet_pton(AF_INET, variable("HOST"), &address.sin_addr);
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 511) != 0) {
        perror("bind");
        return 1;
    }
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0) {
            perror("accept");
            return 1;
        }
        answer(client);
        close(client);
    }
}
