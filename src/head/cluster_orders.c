/* What the cluster's owner tells it, on the socket or from the page. */
#include <string.h>

#include "base/sys.h"
#include "head/cluster_impl.h"

void cluster_invite(struct cluster *c, struct cluster_invitation *out)
{
    struct token t;

    token_book_make(&c->tokens, clock_us(), cluster_token_life_us(c), &t);
    token_text(&t, out->token);
    token_wipe(&t);
    cluster_address(c, out->address);
    out->expires_s = cluster_token_life_us(c) / 1000000;
}

void cluster_invite_anew(struct cluster *c)
{
    struct cluster_invitation in;

    cluster_invite(c, &in);
    if (c->opts.invited)
        c->opts.invited(c->opts.user, in.token, in.address);
    OPENSSL_cleanse(&in, sizeof in);
}

enum err cluster_revoke(struct cluster *c, const char *name, struct err_text *et)
{
    struct member *m = cluster_member_named(c, name);
    struct err_text text;
    struct key_id key;
    bool here;
    enum err e = roster_revoke(c->roster, name, &key, et);

    if (e)
        return e;
    (void)err_set(&text, ERR_GONE, "%s was removed from the cluster", name);
    log_say(&c->opts.log, "cluster", "%s", text.text);
    cluster_send_roster(c);
    here = m && m->link;
    if (here)
        m->link = NULL;
    hub_cut(c->hub, &key, "it was removed from the cluster");
    if (here)
        cluster_member_left(m, text.text, "was removed from the cluster");
    return ERR_NONE;
}

enum err cluster_drain(struct cluster *c, const char *name, struct err_text *et)
{
    struct member *m = cluster_member_named(c, name);

    if (!m || (m->id && !m->link))
        return err_set(et, ERR_INPUT, "there is no device %s here now", name);
    if (m->id == 0)
        return err_set(et, ERR_UNSUPPORTED, "%s is the head itself: it cannot be drained", name);
    m->drained = true; /* still up: until the next plan runs, the core needs to hear of its loss */
    cluster_feed_member(c, CORE_DRAIN, m->id, 0, ERR_NONE, NULL);
    cluster_changed(c);
    return ERR_NONE;
}

enum err cluster_mine(struct cluster *c, const char *name, bool on, struct err_text *et)
{
    enum err e = roster_mine(c->roster, name, on, et);

    if (e)
        return e;
    cluster_send_roster(c);
    if (c->opts.want_private)
        cluster_feed_member(c, CORE_CHANGED, 0, 0, ERR_NONE, NULL);
    return ERR_NONE;
}
