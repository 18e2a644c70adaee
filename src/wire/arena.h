/* Memory for one protobuf message at a time, with a hard end.
 *
 * protobuf-c allocates whatever a message asks for: a megabyte of empty submessages becomes 44 MiB
 * of heap. So messages are unpacked into a fixed piece of memory, of which a message may use a
 * small multiple of its own length; when that is spent, unpacking fails and the message is refused.
 * Nothing is freed one by one: arena_reset forgets all of it. One owner at a time. */
#ifndef LINGUA_WIRE_ARENA_H
#define LINGUA_WIRE_ARENA_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

struct arena {
    uint8_t *base;
    size_t cap, used, limit;
    ProtobufCAllocator allocator; /* hand &arena->allocator to protobuf-c */
};

/* For messages of at most bytes_max bytes. */
void arena_init(struct arena *a, size_t bytes_max);
void arena_fini(struct arena *a);
/* Forgets the last message; the next one has len bytes, at most bytes_max. */
void arena_reset(struct arena *a, size_t len);

#endif
