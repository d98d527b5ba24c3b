/*
 * net_stream.c: one TCP stream, in a guest: stream ADDRESS PORT MEBIBYTES sends that much, and MEBIBYTES 0 receives until
 * the other side is through.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHUNK = 256 << 10 };

static char data[CHUNK];

int main(int argc, char **argv) {
    struct sockaddr_in to = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (argc != 4 || fd < 0 || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1) {
        return 2;
    }
    to.sin_port = htons((unsigned short)atoi(argv[2]));
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) {
        perror("connect");
        return 1;
    }
    long long left = atoll(argv[3]) << 20;
    if (left == 0) {
        while (read(fd, data, sizeof data) > 0) {
        }
    }
    while (left > 0) {
        ssize_t done = write(fd, data, sizeof data);
        if (done <= 0) {
            perror("write");
            return 1;
        }
        left -= done;
    }
    shutdown(fd, SHUT_WR);
    (void)!read(fd, data, 1);
    return 0;
}
