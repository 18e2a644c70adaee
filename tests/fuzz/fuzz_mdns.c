/* Any packet from the local network. What is believed of it must survive being said again. */
#include <string.h>

#include "base/check.h"
#include "link/mdns.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mdns_heard h, again;
    uint8_t out[MDNS_SENT_MAX];

    if (mdns_read(data, size, "Attic", &h))
        CHECK(h.n == 0 && !h.asked && !h.suppress);
    CHECK(h.n >= 0 && h.n <= MDNS_HEADS_MAX);
    for (int i = 0; i < h.n; i++) {
        CHECK(mdns_name_fits(h.heads[i].name));
        CHECK(mdns_read(out, mdns_write_head(out, &h.heads[i]), NULL, &again) == ERR_NONE);
        CHECK(again.n == 1 && strcmp(again.heads[0].name, h.heads[i].name) == 0);
        CHECK(again.heads[0].address == h.heads[i].address);
        CHECK(again.heads[0].port == h.heads[i].port);
    }
    return 0;
}
