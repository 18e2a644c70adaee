/* Writes the seeds of corpus/api into the folder it is given: each route in several ways, and clients
 * beside each other (fuzz_api.c says how an input is made). Routes are numbered as in api.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHAT = 0,
    COMPLETIONS = 2,
    COMPLETION = 3,
    EMBEDDINGS = 5,
    EMBEDDING = 6,
    CLASSIFY = 8,
    MODELS = 9,
    MODEL = 10,
    TOKENIZE = 12,
    DETOKENIZE = 13,
    TEMPLATE = 14,
    HEALTH = 15,
    PROPS = 17,
    SLOTS = 18,
    METRICS = 19,
    SESSION = 20,
    CLUSTER = 21,
    EVENTS = 22,
    DRAIN = 23,
    INVITE = 24,
    PAGE = 25, /* and on, the page's files */
};

static const struct seed {
    const char *name;
    unsigned char flags, order;
    struct {
        unsigned char route, gone;
        const char *body; /* NULL: no more requests */
    } ask[4];
} seeds[] = {
#define HI "\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]"
    {"chat", 0, 1, {{CHAT, 0, "{" HI ",\"max_tokens\":5}"}}},
    {"chat-stream",
     0,
     2,
     {{CHAT, 0,
       "{" HI ",\"stream\":true,\"max_tokens\":8,\"logprobs\":true,"
       "\"top_logprobs\":3,\"stream_options\":{\"include_usage\":"
       "true}}"}}},
    {"chat-parts",
     0,
     3,
     {{CHAT, 0,
       "{\"messages\":[{\"role\":\"developer\",\"content\":[{\"type\":"
       "\"text\",\"text\":\"be short\"}]},{\"role\":\"user\","
       "\"content\":\"a\"}],\"n\":2,\"seed\":7,\"stop\":[\"a\",\"b\"]"
       ",\"max_completion_tokens\":9}"}}},
    {"chat-tools",
     2,
     4,
     {{CHAT, 0,
       "{" HI ",\"tools\":[{\"type\":\"function\",\"function\":{"
       "\"name\":\"look\",\"parameters\":{\"type\":\"object\"}}}],"
       "\"tool_choice\":\"required\",\"stream\":true}"}}},
    {"chat-named",
     2,
     5,
     {{CHAT, 0,
       "{" HI ",\"tools\":[{\"type\":\"function\",\"function\":{"
       "\"name\":\"look\"}}],\"tool_choice\":{\"type\":\"function\","
       "\"function\":{\"name\":\"look\"}}}"}}},
    {"chat-schema",
     0,
     6,
     {{CHAT, 0,
       "{" HI ",\"response_format\":{\"type\":\"json_schema\","
       "\"json_schema\":{\"name\":\"a\",\"schema\":{\"type\":"
       "\"object\"}}}}"}}},
    {"complete",
     0,
     7,
     {{COMPLETIONS, 0,
       "{\"prompt\":\"once upon a time\",\"max_tokens\":6,"
       "\"temperature\":0}"}}},
    {"complete-many",
     0,
     8,
     {{COMPLETIONS, 0,
       "{\"prompt\":[\"hello\",\"world\",\"a\"],\"n\":2,"
       "\"echo\":true,\"logprobs\":2}"}}},
    {"complete-tokens",
     0,
     9,
     {{COMPLETIONS, 0,
       "{\"prompt\":[[5,6,7],[5,6,8]],\"stream\":true,"
       "\"logit_bias\":{\"5\":-100,\"7\":3.5}}"}}},
    {"complete-settings",
     0,
     10,
     {{COMPLETIONS, 0,
       "{\"prompt\":\"the the the\",\"top_k\":5,\"top_p\":0.5,\"min_p\":0.1,\"repeat_penalty\":1.3,"
       "\"frequency_penalty\":-0.5,\"presence_penalty\":1,\"repeat_last_n\":8,\"best_of\":1,"
       "\"user\":\"me\",\"logit_bias\":[[\"the\",false],[9,1]]}"}}},
    {"native",
     0,
     11,
     {{COMPLETION, 0,
       "{\"prompt\":[1,\"hello\",5],\"n_predict\":7,\"n_probs\":4,"
       "\"return_tokens\":true,\"stream\":true,\"id_slot\":1,"
       "\"cache_prompt\":false,\"t_max_predict_ms\":100}"}}},
    {"native-grammar",
     0,
     12,
     {{COMPLETION, 0,
       "{\"prompt\":\"a\",\"grammar\":\"root ::= [a-z]+ x\\nx "
       "::= \\\"lo\\\" | \\\"he\\\"\",\"n_predict\":9}"}}},
    {"native-schema",
     0,
     13,
     {{COMPLETION, 0,
       "{\"prompt\":\"a\",\"json_schema\":{\"type\":"
       "\"object\"},\"n_predict\":-1}"}}},
    {"embed",
     0,
     14,
     {{EMBEDDINGS, 0,
       "{\"input\":[\"hello\",\"world\"],\"encoding_format\":"
       "\"base64\"}"}}},
    {"embed-tokens", 0, 15, {{EMBEDDING, 0, "{\"content\":[5,6,7]}"}}},
    {"classify",
     0,
     16,
     {{CLASSIFY, 0,
       "{\"input\":\"hello\",\"labels\":[\"us\",\"me\"],"
       "\"template\":\"{input}:{label}\"}"}}},
    {"tokenize",
     0,
     17,
     {{TOKENIZE, 0,
       "{\"content\":\"hello w\xc3\xb6rld\",\"with_pieces\":true,"
       "\"add_special\":true}"}}},
    {"detokenize", 0, 18, {{DETOKENIZE, 0, "{\"tokens\":[1,5,300]}"}}},
    {"template", 0, 19, {{TEMPLATE, 0, "{" HI "}"}}},
    {"looks", 0, 20, {{MODELS, 0, ""}, {PROPS, 0, ""}, {SLOTS, 0, ""}, {METRICS, 0, ""}}},
    {"model", 0, 21, {{MODEL, 0, ""}, {MODEL | 128, 0, ""}, {HEALTH, 0, ""}}},
    {"beside",
     0,
     22,
     {{COMPLETIONS, 3, "{\"prompt\":\"hello\",\"stream\":true,\"max_tokens\":30}"},
      {CHAT, 200, "{" HI ",\"stream\":true}"},
      {COMPLETIONS, 0, "{\"prompt\":\"hello\",\"n\":4}"},
      {COMPLETION, 0, "{\"prompt\":\"hello world\",\"n_predict\":4}"}}},
    {"failed",
     4,
     2,
     {{COMPLETIONS, 0, "{\"prompt\":\"hello\",\"stream\":true,\"max_tokens\":9}"},
      {EMBEDDINGS, 0, "{\"input\":\"world\"}"}}},
    {"lost",
     8,
     4,
     {{COMPLETIONS, 0, "{\"prompt\":\"hello\",\"stream\":true,\"max_tokens\":9}"},
      {COMPLETIONS, 0, "{\"prompt\":\"world\",\"max_tokens\":9}"}}},
    {"nowhere", 16, 5, {{COMPLETIONS, 0, "{\"prompt\":\"hello\"}"}, {HEALTH, 0, ""}}},
    {"no-numbers",
     1,
     6,
     {{COMPLETIONS, 0, "{\"prompt\":\"hello\",\"logprobs\":2}"},
      {EMBEDDINGS, 0, "{\"input\":\"world\"}"},
      {CLASSIFY, 0, "{\"input\":\"a\",\"labels\":[\"b\",\"c\"]}"}}},
    {"bad-json",
     0,
     7,
     {{CHAT, 0, "{\"messages\":[[[[{\"a\":1e999,\"a\":\"\\ud800\"}]]]],}"},
      {COMPLETIONS, 0, "{\"prompt\":\"\xff\xfe\"}"},
      {COMPLETIONS, 0, ""}}},
    {"page",
     0,
     8,
     {{SESSION, 0, "{\"key\": \"0123456789abcdef0123456789abcdef0123456789abcdef\"}"},
      {EVENTS, 0, "x"},
      {DRAIN, 0, "{\"name\":\"phone\"}"},
      {INVITE, 0, ""}}},
    {"page-files",
     0,
     9,
     {{PAGE, 0, "br, gzip;q=0.5, *;q=0"},
      {SESSION, 0, ""},
      {CLUSTER, 0, ""},
      {DRAIN, 0, "{\"name\":7}"}}},
};

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 1;
    }
    for (size_t i = 0; i < sizeof seeds / sizeof *seeds; i++) {
        const struct seed *s = &seeds[i];
        char path[4096];
        FILE *f;

        snprintf(path, sizeof path, "%s/%s", argv[1], s->name);
        f = fopen(path, "wb");
        if (!f) {
            perror(path);
            return 1;
        }
        fputc(s->flags, f);
        fputc(s->order, f);
        for (int k = 0; k < 4 && s->ask[k].body; k++) {
            if (k)
                fputs("\xff\xff", f);
            fputc(s->ask[k].route, f);
            fputc(s->ask[k].gone, f);
            fputs(s->ask[k].body, f);
        }
        if (fclose(f) != 0) {
            perror(path);
            return 1;
        }
    }
    return 0;
}
