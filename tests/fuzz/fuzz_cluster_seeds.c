/* Writes the seeds of corpus/cluster into the folder it is given: each message's example, once as a
 * stream would bring it and once in parts (fuzz_cluster.c), and a roster's body. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/cluster_kinds.h"

static void save(const char *folder, const char *name, const char *form, const uint8_t *head,
                 size_t head_len, const uint8_t *bytes, size_t len)
{
    char path[4096];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s-%s", folder, name, form);
    f = fopen(path, "wb");
    if (!f || fwrite(head, 1, head_len, f) != head_len || fwrite(bytes, 1, len, f) != len ||
        fclose(f) != 0) {
        perror(path);
        exit(1);
    }
}

static void save_kind(const char *folder, int i)
{
    static const uint8_t stream[] = {0};
    static union cluster_any m;
    static union cluster_buf buf;
    static uint8_t bytes[1 << 16];
    const struct cluster_kind *k = &cluster_kinds[i];
    struct frame_out out;
    struct frame f;
    uint8_t head[4] = {1, (uint8_t)i};

    memset(&m, 0, sizeof m);
    k->make(&m);
    k->encode(&m, &buf, &out);
    frame_copy(&out, bytes);
    if (frame_decode(bytes, out.total, &f, NULL) != ERR_NONE)
        abort();
    save(folder, k->name, "frame", stream, sizeof stream, bytes, out.total);
    head[2] = (uint8_t)f.header_len;
    head[3] = (uint8_t)(f.header_len >> 8);
    /* Without the zero bytes between the two. */
    memmove(bytes + f.header_len, f.payload, f.payload_len);
    memcpy(bytes, buf.small.bytes, f.header_len);
    save(folder, k->name, "parts", head, sizeof head, bytes, f.header_len + f.payload_len);
}

int main(int argc, char **argv)
{
    static const uint8_t is_body[] = {2};
    static uint8_t bytes[WIRE_ROSTER_BODY_MAX];
    struct wire_roster_body body;

    if (argc != 2) {
        fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 1;
    }
    for (int i = 0; i < CLUSTER_KINDS; i++)
        save_kind(argv[1], i);
    make_roster_body(&body);
    save(argv[1], "roster", "body", is_body, 1, bytes, wire_roster_body_encode(&body, bytes));
    return 0;
}
