/* server KIND: a small HTTP server on the listening socket that it is given as
   descriptor 3: one thread, one epoll. With KIND `cpu` every tenth answer takes
   50 ms of CPU, with `wait` it comes after 100 ms. It knows just enough HTTP for
   wrk: a request is one read. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LISTENER 3
#define MOST 65536

struct waiting {
    int fd, keep;
    long long due;
};
static struct waiting queue[MOST];
static unsigned first, last;

static long long now(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void answer(int fd, int keep)
{
    static const char stays[] = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
    static const char goes[] = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n";
    const char *text = keep ? stays : goes;
    if (send(fd, text, strlen(text), MSG_NOSIGNAL) < 0 || !keep)
        close(fd);
}

int main(int argc, char **argv)
{
    const char *kind = argc > 1 ? argv[1] : "0";
    int set = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = LISTENER};
    fcntl(LISTENER, F_SETFL, O_NONBLOCK);
    epoll_ctl(set, EPOLL_CTL_ADD, LISTENER, &event);
    srandom(getpid());
    for (;;) {
        long long left = first == last ? -1 : queue[first % MOST].due - now(CLOCK_MONOTONIC);
        int timeout = first == last ? -1 : left > 0 ? (int)(left / 1000000) + 1 : 0;
        struct epoll_event events[64];
        int count = epoll_wait(set, events, 64, timeout);
        for (; first != last && queue[first % MOST].due <= now(CLOCK_MONOTONIC); first++)
            answer(queue[first % MOST].fd, queue[first % MOST].keep);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == LISTENER) {
                int client = accept4(LISTENER, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
                event.data.fd = client;
                if (client >= 0)
                    epoll_ctl(set, EPOLL_CTL_ADD, client, &event);
                continue;
            }
            char request[4096];
            ssize_t length = read(fd, request, sizeof request - 1);
            if (length <= 0) {
                close(fd);
                continue;
            }
            request[length] = 0;
            int keep = strstr(request, "Connection: close") == NULL;
            int slow = *kind != '0' && random() % 10 == 0;
            if (slow && *kind == 'w' && last - first < MOST) {
                queue[last++ % MOST] = (struct waiting){fd, keep, now(CLOCK_MONOTONIC) + 100000000};
                continue;
            }
            if (slow)
                for (long long end = now(CLOCK_PROCESS_CPUTIME_ID) + 50000000; now(CLOCK_PROCESS_CPUTIME_ID) < end;)
                    ;
            answer(fd, keep);
        }
    }
}
