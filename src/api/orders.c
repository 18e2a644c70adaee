/* What the page may do to the cluster: take a device out of it, and show how one comes in. */
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "api/api_impl.h"
#include "api/json.h"
#include "base/mem.h"
#include "head/cluster.h"
#include "head/qr.h"

json_t *order_body(struct call *call, struct fault *f)
{
    size_t n;
    const char *s = call_body(call, &n);

    if (n > API_ORDER_MAX) {
        (void)fault_field(f, "", "that is too long: %d bytes at most", API_ORDER_MAX);
        return NULL;
    }
    return json_body(s, n, f);
}

/* ---- POST /cluster/drain ---- */

static bool drain(struct api *a, const json_t *body, struct fault *f)
{
    const char *name = NULL;
    struct err_text et;
    enum err e;

    if (!json_get_string(body, "name", &name, f))
        return false;
    if (!name)
        return fault_field(f, "name", "name is missing: which device to leave out");
    e = cluster_drain(a->cluster, name, &et);
    if (!e)
        return true;
    (void)fault_field(f, "name", "%s", et.text);
    if (e == ERR_INPUT) {
        f->status = 404;
        f->code = "unknown_device";
    }
    return false;
}

void handle_drain(void *user, struct call *call)
{
    struct fault f = {0};
    json_t *body = order_body(call, &f);

    if (!body || !drain(user, body, &f))
        fault_reply(call, &f);
    else
        http_reply(call, 200, json_pack("{s:O}", "name", json_object_get(body, "name")));
    json_decref(body);
}

/* ---- POST /cluster/invite ---- */

/* Rows of "0" and "1"; null where there is no code of it. */
static json_t *qr_json(const struct cluster_invitation *in)
{
    struct qr *qr = qr_of_invitation(in->token, in->address);
    json_t *rows = json_array();
    char *row;

    if (!qr) {
        json_decref(rows);
        return json_null();
    }
    row = mem_alloc((size_t)qr->width + 1);
    row[qr->width] = '\0';
    for (int y = 0; y < qr->width; y++) {
        for (int x = 0; x < qr->width; x++)
            row[x] = qr_is_dark(qr, x, y) ? '1' : '0';
        json_array_append_new(rows, json_string(row));
    }
    free(row);
    qr_free(qr);
    return rows;
}

void handle_invite(void *user, struct call *call)
{
    struct api *a = user;
    struct cluster_invitation in;
    char *command;

    cluster_invite(a->cluster, &in);
    command = mem_printf("lingua join %s", in.address);
    http_header(call, "Cache-Control", "no-store");
    http_reply(call, 200,
               json_pack("{s:s, s:s, s:I, s:s, s:o}", "token", in.token, "address", in.address,
                         "expires_s", (json_int_t)in.expires_s, "command", command, "qr",
                         qr_json(&in)));
    free(command);
    OPENSSL_cleanse(&in, sizeof in);
}
