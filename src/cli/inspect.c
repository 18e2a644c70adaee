/* lingua inspect: the modules of a model, what each weighs and costs, and what every legal cut
 * would have to carry. It reads the file's description only; no weights are loaded. */
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/json.h"
#include "base/mem.h"
#include "cli/cmd.h"
#include "cli/open.h"
#include "cli/options.h"
#include "cli/say.h"
#include "cli/table.h"
#include "model/model.h"
#include "model/modelfile.h"

enum { PREFILL_ROWS = 512 };

struct inspect {
    struct open_options open;
    bool json;
    struct model *model;
    enum kv_type kv;
};

static const char about[] =
    "Lists the modules of a model: parameters, bytes, and costs. read/token is what decoding one\n"
    "token reads of the weights; MFLOP/token what it computes, plus the figure beside it per\n"
    "position already in the context; MFLOP/512 the same for a prompt of 512 tokens as a whole;\n"
    "KV/token what a position adds to the cache. Then what each legal cut carries per row.";

static int parse(struct inspect *s, int argc, char **argv, const char **path)
{
    const struct option_spec options[] = {
        OPTION_KV(&s->open),
        {"json", 0, OPTION_FLAG, &s->json, 0, 0, NULL, NULL, "everything, for machines"},
    };
    const struct command_spec spec = {"inspect [MODEL] [OPTIONS]", about, options,
                                      sizeof options / sizeof *options, 1};
    const char *args[ARGS_MAX];
    int n_args, status = options_parse(&spec, argc, argv, args, &n_args);

    *path = n_args ? args[0] : NULL;
    return status;
}

/* What a prompt of n rows costs in module i. Row r attends to r + 1 positions; past the model's
 * last attention only the row whose logits are wanted is computed. */
static double prefill_flops(const struct model *m, int i, int n)
{
    const struct module_info *info = model_module(m, i);

    if (i > model_rows_shrink_at(m))
        n = 1;
    return n * info->decode_flops + info->attn_flops_per_pos * n * (n + 1.0) / 2;
}

static uint64_t kv_bytes_all(const struct inspect *s)
{
    uint64_t sum = 0;

    for (int i = 0; i < model_n_modules(s->model); i++)
        sum += model_kv_bytes(s->model, i, s->kv);
    return sum;
}

static void line(const char *name, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void line(const char *name, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    printf("%-12s ", name);
    vprintf(fmt, ap);
    putchar('\n');
    va_end(ap);
}

static void header_print(const struct inspect *s)
{
    const struct model_shape *m = model_shape(s->model);
    char a[NUM_MAX], b[NUM_MAX];
    uint64_t kv = kv_bytes_all(s);

    line("model", "%s", m->name);
    line("family", "%s", m->arch);
    line("parameters", "%s", num_short(a, (double)m->n_params));
    line("weights", "%s, mostly %s; the file has %s", num_bytes(a, m->weight_bytes), m->type_name,
         num_bytes(b, modelfile_size(model_file(s->model))));
    line("layers", "%d of width %d", m->n_layers, m->n_embd);
    line("attention", "%d heads of %d, %d for keys and values", m->n_heads, m->head_dim,
         m->n_kv_heads);
    if (m->n_experts)
        line("ffn", "width %d, %d experts, %d used per token", m->n_ff, m->n_experts,
             m->n_experts_used);
    else
        line("ffn", "width %d", m->n_ff);
    line("vocabulary", "%s tokens%s", num_thousands(a, (uint64_t)m->n_vocab),
         m->tied ? ", output shares the embedding's tensor" : "");
    line("context", "%s positions trained%s", num_thousands(a, (uint64_t)m->n_ctx_train),
         m->ctx_is_hard ? ", and no more exist" : "");
    line("KV cache", "%s: %s per position, %s for a full context", kv_type_name(s->kv),
         num_bytes(a, kv), num_bytes(b, kv * (uint64_t)m->n_ctx_train));
    line("kernels", "%s", model_kernels());
    putchar('\n');
}

static bool modules_alike(const struct inspect *s, int i, int j)
{
    const struct module_info *a = model_module(s->model, i), *b = model_module(s->model, j);

    return a->kind == b->kind && a->n_params == b->n_params && a->bytes == b->bytes &&
           a->decode_bytes == b->decode_bytes && a->decode_flops == b->decode_flops &&
           a->attn_flops_per_pos == b->attn_flops_per_pos &&
           prefill_flops(s->model, i, PREFILL_ROWS) == prefill_flops(s->model, j, PREFILL_ROWS) &&
           model_kv_bytes(s->model, i, s->kv) == model_kv_bytes(s->model, j, s->kv);
}

/* How many modules i, i + 2, i + 4 ... are alike: the same kind, layer after layer. */
static int run_length(const struct inspect *s, int i)
{
    int n = 1;

    while (i + 2 * n < model_n_modules(s->model) && modules_alike(s, i, i + 2 * n))
        n++;
    return n;
}

/* n modules like i, every second one, in one row. */
static void module_row(const struct inspect *s, struct table *t, int i, int n)
{
    const struct module_info *m = model_module(s->model, i);
    char buf[NUM_MAX];

    table_row(t);
    if (n > 1) {
        table_cell(t, 0, "%d,%d..%d", i, i + 2, i + 2 * (n - 1));
        table_cell(t, 1, "%s..%d (x%d)", m->name, m->layer + n - 1, n);
    } else {
        table_cell(t, 0, "%d", i);
        table_cell(t, 1, "%s", m->name);
    }
    table_cell(t, 2, "%s", num_short(buf, (double)m->n_params));
    table_cell(t, 3, "%s", num_bytes(buf, m->bytes));
    table_cell(t, 4, "%s", num_bytes(buf, m->decode_bytes));
    table_cell(t, 5, "%.2f", m->decode_flops / 1e6);
    if (m->attn_flops_per_pos > 0)
        table_cell(t, 6, "+%.4f", m->attn_flops_per_pos / 1e6);
    table_cell(t, 7, "%.0f", prefill_flops(s->model, i, PREFILL_ROWS) / 1e6);
    if (m->kind == MODULE_ATTN)
        table_cell(t, 8, "%s", num_bytes(buf, model_kv_bytes(s->model, i, s->kv)));
}

static void totals_row(const struct inspect *s, struct table *t)
{
    double flops = 0, per_pos = 0, prefill = 0;
    uint64_t read = 0;
    char buf[NUM_MAX];

    for (int i = 0; i < model_n_modules(s->model); i++) {
        const struct module_info *m = model_module(s->model, i);

        read += m->decode_bytes;
        flops += m->decode_flops;
        per_pos += m->attn_flops_per_pos;
        prefill += prefill_flops(s->model, i, PREFILL_ROWS);
    }
    table_row(t);
    table_cell(t, 1, "all");
    table_cell(t, 2, "%s", num_short(buf, (double)model_shape(s->model)->n_params));
    table_cell(t, 3, "%s", num_bytes(buf, model_shape(s->model)->weight_bytes));
    table_cell(t, 4, "%s", num_bytes(buf, read));
    table_cell(t, 5, "%.2f", flops / 1e6);
    table_cell(t, 6, "+%.4f", per_pos / 1e6);
    table_cell(t, 7, "%.0f", prefill / 1e6);
    table_cell(t, 8, "%s", num_bytes(buf, kv_bytes_all(s)));
}

static void modules_print(const struct inspect *s)
{
    static const struct table_column columns[] = {
        {"#", false},        {"module", false},    {"params", true},
        {"bytes", true},     {"read/token", true}, {"MFLOP/token", true},
        {"/position", true}, {"MFLOP/512", true},  {"KV/token", true},
    };
    struct table t;
    int n, shown[2] = {0}; /* odd numbers are attn (and output), even ones ffn (and embed) */

    table_init(&t, columns, (int)ARRAY_LEN(columns));
    for (int i = 0; i < model_n_modules(s->model); i++) {
        if (i < shown[i % 2])
            continue;
        n = run_length(s, i);
        shown[i % 2] = i + 2 * n;
        module_row(s, &t, i, n);
    }
    totals_row(s, &t);
    table_print(&t, stdout);
    table_fini(&t);
}

/* "x (288 x f32) + attn_out (288 x f32): 2304 bytes" */
static void edges_text(const struct inspect *s, int i, char *buf, size_t cap)
{
    struct edge edges[EDGES_MAX];
    int n = model_edges(s->model, i, edges);
    uint64_t bytes = 0;
    size_t k = 0;

    for (int e = 0; e < n; e++) {
        int put = snprintf(buf + k, cap - k, "%s%s (%d x f32)", e ? " + " : "", edges[e].name,
                           edges[e].width);

        k += put > 0 && (size_t)put < cap - k ? (size_t)put : 0;
        bytes += (uint64_t)edges[e].width * sizeof(float);
    }
    snprintf(buf + k, cap - k, ", %llu bytes per row", (unsigned long long)bytes);
}

/* Cuts that carry the same stand in one line: attn.i (and output) apart from ffn.i, since only
 * these two kinds can differ. */
static void cuts_print(const struct inspect *s)
{
    int n_modules = model_n_modules(s->model), shrink = model_rows_shrink_at(s->model);
    char here[128], group[128];

    printf("\ncuts         %d legal, in front of every module but the first; each carries\n",
           n_modules - 1);
    edges_text(s, 1, here, sizeof here);
    edges_text(s, n_modules > 2 ? 2 : 1, group, sizeof group);
    if (strcmp(here, group) == 0) {
        printf("             %s\n", here);
    } else {
        printf("             in front of attn and output: %s\n", here);
        printf("             in front of ffn: %s\n", group);
    }
    if (shrink + 1 < n_modules)
        printf("             from module %d on only for rows whose logits are wanted\n",
               shrink + 1);
}

static json_t *module_json(const struct inspect *s, int i)
{
    const struct module_info *m = model_module(s->model, i);
    static const char *const kinds[] = {"embed", "attn", "ffn", "output"};

    return json_pack("{s:i, s:s, s:s, s:i, s:I, s:I, s:I, s:f, s:f, s:f, s:I}", "module", i, "name",
                     m->name, "kind", kinds[m->kind], "layer", m->layer, "params",
                     (json_int_t)m->n_params, "bytes", (json_int_t)m->bytes, "decode_bytes",
                     (json_int_t)m->decode_bytes, "decode_flops", m->decode_flops,
                     "attn_flops_per_position", m->attn_flops_per_pos, "prefill_512_flops",
                     prefill_flops(s->model, i, PREFILL_ROWS), "kv_bytes_per_position",
                     (json_int_t)model_kv_bytes(s->model, i, s->kv));
}

static json_t *cut_json(const struct inspect *s, int i)
{
    struct edge edges[EDGES_MAX];
    int n = model_edges(s->model, i, edges);
    json_t *list = json_array();
    json_int_t bytes = 0;

    for (int e = 0; e < n; e++) {
        json_array_append_new(
            list, json_pack("{s:s, s:i}", "name", edges[e].name, "width", edges[e].width));
        bytes += (json_int_t)edges[e].width * (json_int_t)sizeof(float);
    }
    return json_pack("{s:i, s:s, s:o, s:I, s:b}", "before", i, "before_name",
                     model_module(s->model, i)->name, "edges", list, "bytes_per_row", bytes,
                     "wanted_rows_only", i > model_rows_shrink_at(s->model));
}

static int print_json(const struct inspect *s)
{
    const struct model_shape *m = model_shape(s->model);
    json_t *modules = json_array(), *cuts = json_array(), *o;

    for (int i = 0; i < model_n_modules(s->model); i++) {
        json_array_append_new(modules, module_json(s, i));
        if (i > 0)
            json_array_append_new(cuts, cut_json(s, i));
    }
    o = json_pack("{s:o, s:s, s:s, s:I, s:I, s:I}", "model", json_text(m->name, strlen(m->name)),
                  "arch", m->arch, "quantisation", m->type_name, "params", (json_int_t)m->n_params,
                  "weight_bytes", (json_int_t)m->weight_bytes, "file_bytes",
                  (json_int_t)modelfile_size(model_file(s->model)));
    json_object_update_new(
        o,
        json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:b, s:b}", "layers",
                  m->n_layers, "width", m->n_embd, "heads", m->n_heads, "kv_heads", m->n_kv_heads,
                  "head_dim", m->head_dim, "ffn_width", m->n_ff, "vocabulary", m->n_vocab,
                  "experts", m->n_experts, "experts_used", m->n_experts_used, "context_trained",
                  m->n_ctx_train, "context_is_hard", m->ctx_is_hard, "tied_output", m->tied));
    json_object_update_new(o,
                           json_pack("{s:s, s:I, s:s, s:o, s:o}", "kv", kv_type_name(s->kv),
                                     "kv_bytes_per_position", (json_int_t)kv_bytes_all(s),
                                     "kernels", model_kernels(), "modules", modules, "cuts", cuts));
    return json_print(o);
}

int cmd_inspect(int argc, char **argv)
{
    static const enum kv_type kinds[] = {KV_F16, KV_Q8_0, KV_F32};
    struct inspect s = {0};
    struct err_text et = {{0}};
    const char *model, *unsuited;
    char *path;
    int status = parse(&s, argc, argv, &model);

    if (status >= 0)
        return status;
    unsuited = model_cpu_unsuited();
    if (unsuited) {
        say("%s", unsuited);
        return STATUS_FAILED;
    }
    status = model_path_find(model, &path);
    if (status)
        return status;
    s.kv = kinds[s.open.kv];
    if (model_open(path, &s.model, &et) || model_check_kv(s.model, s.kv, &et)) {
        say("%s", et.text);
        status = STATUS_FAILED;
    } else if (s.json) {
        status = print_json(&s);
    } else {
        header_print(&s);
        modules_print(&s);
        cuts_print(&s);
        status = out_finish();
    }
    if (s.model)
        model_close(s.model);
    free(path);
    return status;
}
