#include "api/metrics.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/exposition.h"
#include "api/http.h"
#include "base/mem.h"
#include "head/gen.h"
#include "lingua/lingua.h"

enum {
    ROUTES_MAX = 48, /* the table has fewer */
    STATUSES_MAX = 24,
};

static const double bounds_ttft[] = {0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60};
static const double bounds_token[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                      0.1,   0.25,   0.5,   1,    2.5};
static const double bounds_request[] = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                        1,     2.5,  5,     10,   30,  60,   300};

struct route_sums {
    char *route;
    struct histogram seconds;
    int n_statuses;
    struct {
        int status;
        uint64_t count;
    } status[STATUSES_MAX];
};

struct metrics {
    struct route_sums route[ROUTES_MAX];
    int n_routes;
    uint64_t prompt, cached, generated, generations;
    double prompt_s, generate_s;
    struct histogram ttft, token;
};

/* ---- counting ---- */

static void histogram_init(struct histogram *h, const double *bounds, size_t n)
{
    h->bounds = bounds;
    h->n_bounds = (int)n;
}

/* The sums of a route; the first is for paths that no route has, and for routes
 * beyond the table's room. */
static struct route_sums *route_find(struct metrics *m, const char *route)
{
    struct route_sums *r;

    for (int i = 0; i < m->n_routes; i++)
        if (strcmp(m->route[i].route, route) == 0)
            return &m->route[i];
    if (m->n_routes == ROUTES_MAX)
        return &m->route[0];
    r = &m->route[m->n_routes++];
    r->route = mem_strdup(route);
    histogram_init(&r->seconds, bounds_request, ARRAY_LEN(bounds_request));
    return r;
}

struct metrics *metrics_new(void)
{
    struct metrics *m = mem_zalloc(1, sizeof *m);

    route_find(m, "other");
    histogram_init(&m->ttft, bounds_ttft, ARRAY_LEN(bounds_ttft));
    histogram_init(&m->token, bounds_token, ARRAY_LEN(bounds_token));
    return m;
}

void metrics_free(struct metrics *m)
{
    for (int i = 0; m && i < m->n_routes; i++)
        free(m->route[i].route);
    free(m);
}

void metrics_answered(struct metrics *m, const char *route, int status, double seconds)
{
    struct route_sums *r = route_find(m, *route ? route : "other");
    int i = 0;

    histogram_add(&r->seconds, seconds);
    while (i < r->n_statuses && r->status[i].status != status)
        i++;
    if (i == STATUSES_MAX)
        return;
    if (i == r->n_statuses)
        r->status[r->n_statuses++].status = status;
    r->status[i].count++;
}

void metrics_gen(struct metrics *m, const struct gen_end *end)
{
    m->generations++;
    m->prompt += (uint64_t)end->n_prompt;
    m->cached += (uint64_t)end->n_cached;
    m->generated += (uint64_t)end->n_generated;
    m->prompt_s += end->prompt_ms / 1000;
    m->generate_s += end->generate_ms / 1000;
    if (end->n_generated > 0)
        histogram_add(&m->ttft, end->ttft_ms / 1000);
}

void metrics_token(struct metrics *m, double seconds)
{
    histogram_add(&m->token, seconds);
}

/* ---- the page ---- */

static void gauge(struct exposition *x, const char *name, const char *help, double value)
{
    exposition_family(x, name, "gauge", help);
    exposition_value(x, NULL, value);
}

static void counter(struct exposition *x, const char *name, const char *help, uint64_t value)
{
    exposition_family(x, name, "counter", help);
    exposition_count(x, NULL, value);
}

static void write_requests(struct exposition *x, const struct metrics *m)
{
    exposition_family(x, "lingua_requests_total", "counter",
                      "Requests answered, by route and HTTP status; 499: the client went away.");
    for (int i = 0; i < m->n_routes; i++)
        for (int k = 0; k < m->route[i].n_statuses; k++) {
            char status[16];

            snprintf(status, sizeof status, "%d", m->route[i].status[k].status);
            exposition_count(
                x, (struct exposition_label[2]){{"route", m->route[i].route}, {"status", status}},
                m->route[i].status[k].count);
        }
    exposition_family(x, "lingua_request_seconds", "histogram",
                      "Seconds from the first byte of a request to the last of its answer.");
    for (int i = 0; i < m->n_routes; i++)
        exposition_histogram(x, &(struct exposition_label){"route", m->route[i].route},
                             &m->route[i].seconds);
}

static void write_tokens(struct exposition *x, const struct metrics *m)
{
    counter(x, "lingua_generations_total", "Generations that have ended.", m->generations);
    counter(x, "lingua_prompt_tokens_total", "Tokens of prompts, those found in a slot included.",
            m->prompt);
    counter(x, "lingua_cached_tokens_total", "Tokens of prompts that a slot held already.",
            m->cached);
    counter(x, "lingua_generated_tokens_total", "Tokens generated.", m->generated);
    exposition_family(x, "lingua_time_to_first_token_seconds", "histogram",
                      "Seconds from the beginning of a generation to its first token.");
    exposition_histogram(x, NULL, &m->ttft);
    exposition_family(x, "lingua_inter_token_seconds", "histogram",
                      "Seconds between two tokens of a generation.");
    exposition_histogram(x, NULL, &m->token);
}

static void write_work(struct exposition *x, const struct metrics_now *now)
{
    const struct cluster_stats *c = now->cluster;

    gauge(x, "lingua_ready", "1 while an epoch runs and answers can come.", c->running);
    gauge(x, "lingua_queue_waiting", "Generations that wait for a slot.", c->n_waiting);
    gauge(x, "lingua_streams", "Generations that have a slot.", c->n_streams);
    gauge(x, "lingua_slots", "Slots there are.", now->facts->n_slots);
    gauge(x, "lingua_slots_busy", "Slots in use.", c->n_slots_busy);
    gauge(x, "lingua_context_tokens", "Positions a slot holds.", now->facts->n_ctx);
    gauge(x, "lingua_steps_in_flight", "Steps under way through the stages.", c->n_flight);
    counter(x, "lingua_steps_total", "Steps sent.", c->steps);
    counter(x, "lingua_rows_read_total", "Rows of prompts sent.", c->rows_read);
    counter(x, "lingua_rows_decoded_total", "Rows of generated tokens sent.", c->rows_decoded);
}

static void write_plan(struct exposition *x, const struct cluster_stats *c)
{
    double predicted = c->predicted_token_s, measured = c->measured_token_s;

    gauge(x, "lingua_epoch", "Number of the plan that runs, or ran last.", c->epoch);
    counter(x, "lingua_epochs_total", "Plans that were carried out.", c->epochs);
    counter(x, "lingua_devices_lost_total", "Devices that were lost.", c->devices_lost);
    exposition_family(x, "lingua_predicted_token_seconds", "gauge",
                      "Seconds per token that the running plan predicts for one stream.");
    if (predicted > 0)
        exposition_value(x, NULL, predicted);
    exposition_family(x, "lingua_measured_token_seconds", "gauge",
                      "Seconds per token measured under the running plan.");
    if (measured > 0)
        exposition_value(x, NULL, measured);
    exposition_family(x, "lingua_prediction_error_ratio", "gauge",
                      "Measured over predicted, less one: 0.1 is a tenth slower than predicted.");
    if (predicted > 0 && measured > 0)
        exposition_value(x, NULL, measured / predicted - 1);
}

/* The figures of devices, one family each. A name stands once: a second sample of the same labels
 * would cost the reader the page. */
enum device_figure {
    FIGURE_UP,
    FIGURE_BUSY,
    FIGURE_STEPS,
    FIGURE_ROWS,
    FIGURE_MEMORY,
    FIGURE_BUDGET
};

static const struct {
    enum device_figure figure;
    const char *name, *type, *help;
} device_families[] = {
    {FIGURE_UP, "lingua_device_up", "gauge", "1 while the device is there."},
    {FIGURE_BUSY, "lingua_device_busy_seconds_total", "counter",
     "Seconds the device has computed."},
    {FIGURE_STEPS, "lingua_device_steps_total", "counter", "Steps the device has computed."},
    {FIGURE_ROWS, "lingua_device_rows_total", "counter", "Rows the device has computed."},
    {FIGURE_MEMORY, "lingua_device_memory_bytes", "gauge",
     "Resident memory of the device's program."},
    {FIGURE_BUDGET, "lingua_device_memory_budget_bytes", "gauge",
     "Memory the device's program may use."},
};

static void write_figure(struct exposition *x, enum device_figure figure,
                         const struct cluster_device_stats *d)
{
    const struct exposition_label labels[2] = {{"device", d->name}, {0}};

    switch (figure) {
    case FIGURE_UP:
        exposition_count(x, labels, d->up);
        break;
    case FIGURE_BUSY:
        exposition_value(x, labels, d->busy_s);
        break;
    case FIGURE_STEPS:
        exposition_count(x, labels, d->steps);
        break;
    case FIGURE_ROWS:
        exposition_count(x, labels, d->rows);
        break;
    case FIGURE_MEMORY:
        exposition_count(x, labels, d->memory_bytes);
        break;
    case FIGURE_BUDGET:
        exposition_count(x, labels, d->budget_bytes);
        break;
    }
}

static bool device_repeats(const struct cluster_stats *c, int i)
{
    for (int k = 0; k < i; k++)
        if (strcmp(c->device[k].name, c->device[i].name) == 0)
            return true;
    return false;
}

static void write_devices(struct exposition *x, const struct cluster_stats *c)
{
    for (size_t f = 0; f < ARRAY_LEN(device_families); f++) {
        exposition_family(x, device_families[f].name, device_families[f].type,
                          device_families[f].help);
        for (int i = 0; i < c->n_devices; i++)
            if (!device_repeats(c, i))
                write_figure(x, device_families[f].figure, &c->device[i]);
    }
}

/* A plan may cross the same pair twice; the pair is one sample, of both hops together. False: an
 * earlier one has told of it. */
static bool hop_sum(const struct cluster_stats *c, int i, struct cluster_hop_stats *sum)
{
    *sum = c->hop[i];
    for (int k = 0; k < c->n_hops; k++) {
        if (k == i || strcmp(c->hop[k].from, sum->from) != 0 || strcmp(c->hop[k].to, sum->to) != 0)
            continue;
        if (k < i)
            return false;
        sum->bytes += c->hop[k].bytes;
        sum->frames += c->hop[k].frames;
    }
    return true;
}

static void write_hops(struct exposition *x, const struct cluster_stats *c)
{
    static const struct {
        const char *name, *type, *help;
    } families[] = {
        {"lingua_hop_latency_seconds", "gauge",
         "Half the least round trip between two devices of the plan."},
        {"lingua_hop_bytes_total", "counter", "Bytes sent over the hop since its plan began."},
        {"lingua_hop_frames_total", "counter", "Frames sent over the hop since its plan began."},
    };
    struct cluster_hop_stats sum;

    for (size_t f = 0; f < ARRAY_LEN(families); f++) {
        exposition_family(x, families[f].name, families[f].type, families[f].help);
        for (int i = 0; i < c->n_hops; i++) {
            const struct exposition_label labels[2] = {{"from", c->hop[i].from},
                                                       {"to", c->hop[i].to}};

            if (!hop_sum(c, i, &sum))
                continue;
            if (f == 0 && sum.latency_s > 0)
                exposition_value(x, labels, sum.latency_s);
            else if (f)
                exposition_count(x, labels, f == 1 ? sum.bytes : sum.frames);
        }
    }
}

static void write_http(struct exposition *x, const struct http_stats *h)
{
    gauge(x, "lingua_http_connections", "Connections of clients.", h->n_connections);
    counter(x, "lingua_http_connections_total", "Connections taken.", h->connections);
    gauge(x, "lingua_http_requests_in_flight", "Requests whose answer is not complete.",
          h->n_calls);
    counter(x, "lingua_http_requests_total", "Requests read.", h->requests);
    counter(x, "lingua_http_bad_requests_total",
            "Requests answered with a fault of the client's, 4xx.", h->bad_requests);
    counter(x, "lingua_http_dropped_total", "Answers given up because the client did not read.",
            h->dropped);
}

static void write_process(struct exposition *x, const struct metrics_now *now)
{
    const struct exposition_label labels[2] = {{"version", LL_VERSION},
                                               {"model", now->facts->model_name}};

    gauge(x, "process_resident_memory_bytes", "Resident memory of this program.",
          (double)now->resident_bytes);
    gauge(x, "process_open_fds", "Open descriptors of this program.", now->n_fds);
    exposition_family(x, "process_cpu_seconds_total", "counter",
                      "Seconds of CPU this program has used.");
    exposition_value(x, NULL, now->cpu_s);
    gauge(x, "process_start_time_seconds", "When the API was opened, in seconds since 1970.",
          now->started_s);
    exposition_family(x, "lingua_info", "gauge", "1; the program's version and the model.");
    exposition_count(x, labels, 1);
}

static double rate(uint64_t n, double s)
{
    return s > 0 ? (double)n / s : 0;
}

/* llama-server's names, so that what scrapes it can scrape us. */
static void write_llama(struct exposition *x, const struct metrics *m,
                        const struct cluster_stats *c)
{
    uint64_t read = m->prompt - m->cached;

    counter(x, "llamacpp:prompt_tokens_total", "Tokens of prompts that were read.", read);
    exposition_family(x, "llamacpp:prompt_seconds_total", "counter", "Seconds spent reading them.");
    exposition_value(x, NULL, m->prompt_s);
    counter(x, "llamacpp:tokens_predicted_total", "Tokens generated.", m->generated);
    exposition_family(x, "llamacpp:tokens_predicted_seconds_total", "counter",
                      "Seconds spent generating them.");
    exposition_value(x, NULL, m->generate_s);
    counter(x, "llamacpp:n_decode_total", "Steps sent.", c->steps);
    gauge(x, "llamacpp:prompt_tokens_seconds",
          "Tokens of prompts read per second, since the start.", rate(read, m->prompt_s));
    gauge(x, "llamacpp:predicted_tokens_seconds", "Tokens generated per second, since the start.",
          rate(m->generated, m->generate_s));
    gauge(x, "llamacpp:requests_processing", "Generations that have a slot.", c->n_streams);
    gauge(x, "llamacpp:requests_deferred", "Generations that wait for a slot.", c->n_waiting);
}

char *metrics_text(const struct metrics *m, const struct metrics_now *now, size_t *n)
{
    struct exposition x = {0};

    write_requests(&x, m);
    write_tokens(&x, m);
    write_work(&x, now);
    write_plan(&x, now->cluster);
    write_devices(&x, now->cluster);
    write_hops(&x, now->cluster);
    write_http(&x, now->http);
    write_process(&x, now);
    write_llama(&x, m, now->cluster);
    *n = x.n;
    return x.text;
}
