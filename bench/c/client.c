/* client PORT CLIENTS SECONDS short|keep LATE_MS: a strict HTTP client of
   127.0.0.1. Each of CLIENTS threads asks as fast as it is answered, with a
   connection for each request (`short`) or one for as long as it stays open
   (`keep`). Whatever is not a whole answer counts as failed, and nothing is
   tried again. After SECONDS, or on SIGTERM, it prints one line of JSON; `bins`
   has [answered, failed] of each tenth of a second from its start on. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { OK, REFUSED, RESET, EMPTY, SHORT, BAD, TIMEOUT, KINDS };
static const char *const names[] = {"ok", "refused", "reset", "empty", "short", "bad", "timeout"};

enum { MOST_CLIENTS = 1024, MOST_BINS = 36000, PATIENCE_S = 5 };
static atomic_long counts[KINDS], late, bins[MOST_BINS][2];
static volatile sig_atomic_t over;
static int port, keep;
static long long begin, end, late_ns;

static long long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static int dial(int *kind)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    struct timeval patience = {.tv_sec = PATIENCE_S};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    *kind = errno == ECONNREFUSED ? REFUSED : errno == EINPROGRESS || errno == ETIMEDOUT ? TIMEOUT : RESET;
    close(fd);
    return -1;
}

/* Asks once. Returns what came of it; `stays` is whether the connection can be
   used again. */
static int ask(int fd, int *stays)
{
    char request[128], answer[16384];
    int length = snprintf(request, sizeof request, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: %s\r\n\r\n",
                          keep ? "keep-alive" : "close");
    *stays = 0;
    if (send(fd, request, (size_t)length, MSG_NOSIGNAL) != length)
        return RESET;
    char *body = NULL;
    size_t have = 0;
    long wanted = -1;
    int chunked = 0, closes = 0;
    for (;;) {
        if (have == sizeof answer - 1)
            return BAD;
        ssize_t got = recv(fd, answer + have, sizeof answer - 1 - have, 0);
        if (got < 0)
            return errno == EAGAIN ? TIMEOUT : RESET;
        if (got == 0) /* Only an answer without a length ends like this. */
            return have == 0 ? EMPTY : body != NULL && wanted < 0 && !chunked ? OK : SHORT;
        have += (size_t)got;
        answer[have] = 0;
        if (body == NULL) {
            char *blank = strstr(answer, "\r\n\r\n");
            if (blank == NULL)
                continue;
            *blank = 0;
            body = blank + 4;
            if (strncmp(answer, "HTTP/1.", 7) != 0 || strncmp(answer + 8, " 200", 4) != 0)
                return BAD;
            char *field = strcasestr(answer, "\r\ncontent-length:");
            if (field != NULL)
                wanted = atol(field + 17);
            chunked = strcasestr(answer, "\r\ntransfer-encoding: chunked") != NULL;
            closes = strcasestr(answer, "\r\nconnection: close") != NULL || answer[7] == '0';
        }
        size_t bytes = have - (size_t)(body - answer);
        if ((wanted >= 0 && bytes >= (size_t)wanted) || (chunked && bytes >= 5 && memcmp(answer + have - 5, "0\r\n\r\n", 5) == 0)) {
            *stays = keep && !closes;
            return OK;
        }
    }
}

static void *client(void *nothing)
{
    int fd = -1;
    while (!over && now() < end) {
        int kind = OK, stays = 0;
        long long asked = now();
        if (fd < 0)
            fd = dial(&kind);
        if (fd >= 0)
            kind = ask(fd, &stays);
        long long answered = now(), slot = (answered - begin) / 100000000LL;
        counts[kind]++;
        if (slot < MOST_BINS)
            bins[slot][kind != OK]++;
        if (kind == OK)
            late += answered - asked > late_ns;
        else
            usleep(1000); /* A refusal costs nothing: a loop of them would be a flood. */
        if (fd >= 0 && !stays) {
            close(fd);
            fd = -1;
        }
    }
    if (fd >= 0)
        close(fd);
    return nothing;
}

static void stop(int signal)
{
    over = signal;
}

int main(int argc, char **argv)
{
    if (argc < 6)
        return 2;
    port = atoi(argv[1]);
    int clients = atoi(argv[2]);
    keep = strcmp(argv[4], "keep") == 0;
    late_ns = atoll(argv[5]) * 1000000;
    if (clients < 1 || clients > MOST_CLIENTS)
        return 2;
    signal(SIGTERM, stop);
    begin = now();
    end = begin + (long long)(atof(argv[3]) * 1e9);
    pthread_t threads[MOST_CLIENTS];
    for (int i = 0; i < clients; i++)
        if (pthread_create(&threads[i], NULL, client, NULL) != 0)
            return 1;
    for (int i = 0; i < clients; i++)
        pthread_join(threads[i], NULL);
    long long last = (now() - begin) / 100000000LL;

    printf("{\"late\":%ld", (long)late);
    for (int kind = 0; kind < KINDS; kind++)
        printf(",\"%s\":%ld", names[kind], (long)counts[kind]);
    printf(",\"bins\":[");
    for (long long slot = 0; slot <= last && slot < MOST_BINS; slot++)
        printf("%s[%ld,%ld]", slot ? "," : "", (long)bins[slot][0], (long)bins[slot][1]);
    printf("]}\n");
    return 0;
}
