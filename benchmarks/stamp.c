/* The child of the benchmarks: says the time of its main() and its pid into a FIFO, then sleeps until it is killed. */
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
    struct timespec now;
    char line[128];
    if (argc != 3) return 2;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int fifo = open(argv[1], O_WRONLY | O_CLOEXEC);
    if (fifo < 0) return 3;
    int length = snprintf(line, sizeof line, "%lld %d %s\n", (long long)now.tv_sec * 1000000000LL + now.tv_nsec,
                          (int)getpid(), argv[2]);
    if (write(fifo, line, (size_t)length) != length) return 4;
    close(fifo);
    for (;;) pause();
}
