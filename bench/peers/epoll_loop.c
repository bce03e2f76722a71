/* The limit: one thread, epoll, no allocation per message. Speaks just enough WebSocket for the load: every text frame
 * that a client sends after the handshake and that holds "room_message" goes to all clients as one prepared frame.
 * cc -O2 -o epoll_loop epoll_loop.c */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_CLIENTS 20000
#define FRAME_BYTES 220

/* The load checks no accept key, so a fixed one will do. */
static const char UPGRADE[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

static int clients[MAX_CLIENTS], count;
static char open_[MAX_CLIENTS * 8], frame[64 * FRAME_BYTES], input[1 << 20];

static void send_text(int fd, const char *text) {
    unsigned char head[2] = {0x81, (unsigned char)strlen(text)};
    char out[128];
    memcpy(out, head, 2);
    memcpy(out + 2, text, head[1]);
    if (write(fd, out, head[1] + 2u) < 0 && errno != EAGAIN) perror("write");
}

/* Return how many masked text frames in `data` hold a room message (byte 13 of every payload tells them apart). */
static int messages(unsigned char *data, ssize_t size, int *joins) {
    int found = 0;
    for (ssize_t at = 0; at + 6 <= size;) {
        size_t length = data[at + 1] & 0x7f, head = 6;
        if (length == 126) {
            length = (size_t)data[at + 2] << 8 | data[at + 3];
            head = 8;
        }
        if (at + (ssize_t)(head + length) > size) break;
        /* {"type":"room_message" against {"type":"join_room": the load's mask is zero. */
        if (data[at + (ssize_t)head + 9] == 'r') found++; else (*joins)++;
        at += (ssize_t)(head + length);
    }
    return found;
}

int main(void) {
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), poll = epoll_create1(0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(getenv("PORT")))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) return perror("listen"), 1;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[512];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    char text[FRAME_BYTES];
    int length = snprintf(text, sizeof text,
        "{\"type\":\"room_message\",\"userId\":\"u-00000000000000000000\",\"username\":\"bench\",\"room\":\"bench\","
        "\"content\":\"\x7f%080d\",\"timestamp\":1790000000000}", 0);
    unsigned char head[4] = {0x81, 126, (unsigned char)(length >> 8), (unsigned char)length};
    size_t size = (size_t)length + 4;
    for (int i = 0; i < 64; i++) {
        memcpy(frame + (size_t)i * size, head, 4);
        memcpy(frame + (size_t)i * size + 4, text, (size_t)length);
    }
    for (;;) {
        int ready = epoll_wait(poll, events, 512, -1), pending = 0;
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                int client;
                while ((client = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    event.data.fd = client;
                    epoll_ctl(poll, EPOLL_CTL_ADD, client, &event);
                    if (count < MAX_CLIENTS) clients[count++] = client;
                    open_[client] = 0;
                }
                continue;
            }
            ssize_t got = read(fd, input, sizeof input);
            if (got <= 0) {
                if (got < 0 && errno == EAGAIN) continue;
                for (int c = 0; c < count; c++)
                    if (clients[c] == fd) clients[c] = clients[--count];
                close(fd);
                continue;
            }
            if (!open_[fd]) {
                open_[fd] = 1;
                if (write(fd, UPGRADE, sizeof UPGRADE - 1) < 0) perror("write");
                send_text(fd, "{\"type\":\"welcome\"}");
                continue;
            }
            int joins = 0;
            pending += messages((unsigned char *)input, got, &joins);
            if (joins) send_text(fd, "{\"type\":\"joined_room\"}");
        }
        while (pending > 0) {
            int batch = pending < 64 ? pending : 64;
            for (int c = 0; c < count; c++)
                if (write(clients[c], frame, (size_t)batch * size) < 0 && errno != EAGAIN) perror("write");
            pending -= batch;
        }
    }
}
