/* The sender and the receivers of the channel's benchmark, in C.
     channel supervisor              a worker: slot 0 sends, the others receive
     channel redis send|recv N PORT
   As channel.js, which says what WHAT and FOLDER are. A receiver counts lines, and
   looks into one only for its time, so that the relay is what is measured. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LENGTH 128
#define BATCH 64
#define WINDOW 4096
/* Of messages that come as fast as they can, one in so many has its time taken. */
#define SAMPLED 32

static long total, per_second, warm_up;
static const char *folder;

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void write_all(int fd, const char *text, size_t length)
{
    while (length > 0) {
        ssize_t done = write(fd, text, length);
        if (done <= 0)
            exit(1);
        text += done;
        length -= done;
    }
}

/* A message of LENGTH bytes with its line end. */
static void payload(char *to, long i)
{
    int head = sprintf(to, "{\"broadcast\":true,\"i\":%ld,\"t\":%lld,\"p\":\"", i, now());
    memset(to + head, 'x', LENGTH - 3 - head);
    memcpy(to + LENGTH - 3, "\"}\n", 3);
}

static void finish(int number, long count, long long first, long long *latencies, long samples)
{
    char part[256], result[256];
    snprintf(part, sizeof part, "%s/part-%d", folder, number);
    snprintf(result, sizeof result, "%s/result-%d", folder, number);
    FILE *file = fopen(part, "w");
    if (file == NULL)
        exit(1);
    fprintf(file, "{\"count\":%ld,\"first\":%lld,\"end\":%lld,\"latencies\":[", count, first, now());
    for (long i = 0; i < samples; i++)
        fprintf(file, "%s%lld", i ? "," : "", latencies[i]);
    fprintf(file, "]}");
    fclose(file);
    rename(part, result);
}

static long long sent_at(const char *line, const char *end)
{
    const char *time = memmem(line, end - line, "\"t\":", 4);
    return time != NULL ? atoll(time + 4) : 0;
}

/* Counts messages, which begin with `{`; others are protocol. */
static void receive(int fd, int number)
{
    static char buffer[1 << 18];
    size_t have = 0;
    long count = 0, samples = 0, most = per_second > 0 ? total : total / SAMPLED;
    long long first = 0, *latencies = malloc(sizeof *latencies * (most + 1));
    for (;;) {
        ssize_t got = read(fd, buffer + have, sizeof buffer - have);
        if (got <= 0)
            exit(1);
        have += got;
        char *line = buffer, *end;
        while ((end = memchr(line, '\n', have - (line - buffer))) != NULL) {
            if (line[0] == '{') {
                int is_sampled = per_second > 0 ? count >= warm_up : count % SAMPLED == SAMPLED - 1;
                if (count == 0 || is_sampled) {
                    long long at = now(), sent = sent_at(line, end);
                    if (count == 0)
                        first = sent;
                    if (is_sampled)
                        latencies[samples++] = at - sent;
                }
                if (++count == total) {
                    finish(number, count, first, latencies, samples);
                    pause();
                }
            }
            line = end + 1;
        }
        have -= line - buffer;
        memmove(buffer, line, have);
    }
}

static void wait_for_replies(int fd, long *under_way, long most)
{
    static char replies[1 << 16];
    while (*under_way > most) {
        ssize_t got = read(fd, replies, sizeof replies);
        if (got <= 0)
            exit(1);
        for (ssize_t i = 0; i < got; i++)
            *under_way -= replies[i] == ':';
    }
}

static void run(int fd, int is_redis)
{
    static char block[BATCH * (LENGTH + 64)];
    long under_way = 0, batch = per_second > 0 ? 1 : BATCH;
    long long begin = now();
    for (long i = 0; i < total;) {
        size_t length = 0;
        for (long k = 0; k < batch && i < total; k++, i++) {
            if (is_redis)
                length += sprintf(block + length, "*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n$%d\r\n", LENGTH - 1);
            payload(block + length, i);
            length += is_redis ? LENGTH - 1 : LENGTH;
            if (is_redis)
                length += sprintf(block + length, "\r\n");
        }
        write_all(fd, block, length);
        under_way += is_redis ? batch : 0;
        wait_for_replies(fd, &under_way, WINDOW);
        if (per_second > 0) {
            long long left = begin + (i + 1) * (1000000000LL / per_second) - now();
            struct timespec pause_for = {left / 1000000000LL, left % 1000000000LL};
            if (left > 0)
                nanosleep(&pause_for, NULL);
        }
    }
}

static int connect_to(const char *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        exit(1);
    return fd;
}

int main(int argc, char **argv)
{
    char kind[8];
    folder = getenv("FOLDER");
    if (argc < 2 || folder == NULL || getenv("WHAT") == NULL || sscanf(getenv("WHAT"), "%7s %ld %ld", kind, &total, &per_second) < 2)
        return 2;
    warm_up = per_second; /* The first second. */
    if (strcmp(argv[1], "supervisor") == 0) {
        int fd = atoi(getenv("SUPERVISOR_IPC")), slot = atoi(getenv("SUPERVISOR_INSTANCE"));
        char go;
        if (slot > 0)
            receive(fd, slot);
        if (read(fd, &go, 1) != 1)
            return 1;
        run(fd, 0);
        pause();
    }
    if (argc < 5)
        return 2;
    int fd = connect_to(argv[4]);
    sigset_t go;
    sigemptyset(&go);
    sigaddset(&go, SIGUSR2);
    sigprocmask(SIG_BLOCK, &go, NULL);
    int is_receiver = strcmp(argv[2], "recv") == 0, signal;
    if (is_receiver)
        write_all(fd, "*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nc\r\n", 27);
    char ready[256];
    snprintf(ready, sizeof ready, "%s/ready-%s", folder, argv[3]);
    close(open(ready, O_CREAT | O_WRONLY, 0600));
    if (is_receiver)
        receive(fd, atoi(argv[3]));
    sigwait(&go, &signal);
    run(fd, 1);
    pause();
}
