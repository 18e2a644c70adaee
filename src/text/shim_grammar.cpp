/* Grammars: llama.cpp's reader and matcher, behind our own bounds and our own waiting.
 *
 * We use its internal interface (llama-grammar.h) because the public one prints what it cannot read
 * to stderr, runs regular expressions over the whole answer for every token of a lazy grammar, and
 * aborts at an end token that comes too early. Its test for left recursion misses rules that are
 * empty only through other rules, on which its matcher never ends, and takes exponential time on
 * rules that share beginnings; so we test first (`Shape`). */
#include "text/text_shim.h"

#include <cmath>
#include <cstring>
#include <memory>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized" /* inside <regex>, when sanitised */
#endif
#include <regex>
#include <string>
#include <vector>

#include "llama-grammar.h"
#include "text/shim_guard.h"

namespace
{

/* What beginnings of rules may come to. A position's stacks are the places in the grammar where its
 * next character may stand. */
const size_t depth_max = 2000;   /* llama.cpp recurses so deep */
const double visits_max = 5e6;   /* steps of its test for left recursion */
const double stacks_max = 20000; /* and its work at each character is up to the square of them */
/* Where a grammar is ambiguous they multiply with each character, so what the answer may come to is
 * much less, beside what the grammar itself says. */
const double stacks_more = 200;

struct shape_error {
    enum err e;
    uint32_t rule;
    const char *what;
};

/* Which rules can be empty, and which rules each can begin with. */
class Shape
{
  public:
    explicit Shape(const llama_grammar_rules &rules) : rules_(rules), nodes_(rules.size())
    {
        find_empty();
        for (size_t i = 0; i < rules.size(); i++)
            find_first((uint32_t)i);
    }

    /* The most stacks that any rule begins with. Throws shape_error. */
    double check()
    {
        double visits = 0;

        for (size_t i = 0; i < nodes_.size(); i++) {
            if (nodes_[i].state == NEW)
                descend((uint32_t)i);
            visits += nodes_[i].visits;
        }
        if (visits > visits_max)
            throw shape_error{ERR_LIMIT, 0, "rules begin with each other in too many ways"};
        for (size_t i = 0; i < nodes_.size(); i++)
            if (nodes_[i].order == 0)
                group((uint32_t)i);
        return widest_;
    }

  private:
    enum state { NEW, OPEN, DONE };
    struct edge {
        uint32_t to;
        bool tail; /* nothing follows it */
    };
    struct node {
        /* Rules it can begin with, as often as it can; as llama.cpp's test sees it, and truly. */
        std::vector<uint32_t> seen;
        std::vector<edge> first;
        double leaves = 0; /* characters it can begin with, and its own end */
        double visits = 0, stacks = 0;
        size_t depth = 0;
        enum state state = NEW;
        bool empty = false, empty_seen = false;
        size_t order = 0, low = 0; /* Tarjan's; order 0: not met yet */
        bool open = false;
    };
    const llama_grammar_rules &rules_;
    std::vector<node> nodes_;
    std::vector<uint32_t> open_; /* Tarjan's stack */
    size_t n_met_ = 0;
    double widest_ = 0;

    static bool ends(const llama_grammar_element &e)
    {
        return e.type == LLAMA_GRETYPE_END || e.type == LLAMA_GRETYPE_ALT;
    }

    /* An alternative is empty when all its elements are rules that are: each newly found empty rule
     * is crossed off wherever it stands, so the work is linear. */
    void find_empty()
    {
        struct alternative {
            uint32_t rule;
            size_t left; /* elements not known to be empty */
        };
        std::vector<alternative> alts;
        std::vector<std::vector<size_t>> uses(rules_.size()); /* alternatives each rule stands in */
        std::vector<uint32_t> todo;

        auto found = [&](uint32_t rule) {
            if (!nodes_[rule].empty) {
                nodes_[rule].empty = true;
                todo.push_back(rule);
            }
        };
        for (size_t r = 0; r < rules_.size(); r++) {
            alternative alt = {(uint32_t)r, 0};
            for (const auto &e : rules_[r]) {
                if (e.type == LLAMA_GRETYPE_RULE_REF)
                    uses[e.value].push_back(alts.size());
                if (!ends(e)) {
                    alt.left++;
                    continue;
                }
                alts.push_back(alt);
                if (alt.left == 0) {
                    nodes_[r].empty_seen = true;
                    found((uint32_t)r);
                }
                alt.left = 0;
            }
        }
        while (!todo.empty()) {
            uint32_t rule = todo.back();
            todo.pop_back();
            for (size_t i : uses[rule])
                if (--alts[i].left == 0)
                    found(alts[i].rule);
        }
    }

    void find_first(uint32_t rule)
    {
        const llama_grammar_rule &r = rules_[rule];
        node &n = nodes_[rule];
        bool start = true, start_seen = true;

        for (size_t i = 0; i < r.size(); i++) {
            if (ends(r[i])) {
                n.leaves += start;
                start = start_seen = true;
                continue;
            }
            bool ref = r[i].type == LLAMA_GRETYPE_RULE_REF;
            if (start && ref)
                n.first.push_back({r[i].value, ends(r[i + 1])});
            else if (start)
                n.leaves++;
            if (start_seen && ref)
                n.seen.push_back(r[i].value);
            start = start && ref && nodes_[r[i].value].empty;
            start_seen = start_seen && ref && nodes_[r[i].value].empty_seen;
        }
    }

    [[noreturn]] static void left_recursion(uint32_t rule)
    {
        throw shape_error{ERR_INPUT, rule,
                          "a rule begins with itself (left recursion); put something in front of "
                          "it, or use * or +"};
    }

    void finish(uint32_t rule)
    {
        node &n = nodes_[rule];

        n.visits = 1;
        for (uint32_t f : n.seen) {
            n.visits += nodes_[f].visits;
            n.depth = std::max(n.depth, nodes_[f].depth + 1);
        }
        n.state = DONE;
        if (n.depth > depth_max)
            throw shape_error{ERR_LIMIT, rule, "rules begin with rules too deep"};
    }

    /* The way llama.cpp's test goes. Without recursion: a path is as long as there are rules. */
    void descend(uint32_t root)
    {
        std::vector<std::pair<uint32_t, size_t>> path = {{root, 0}};

        nodes_[root].state = OPEN;
        while (!path.empty()) {
            auto &[rule, next] = path.back();
            if (next == nodes_[rule].seen.size()) {
                finish(rule);
                path.pop_back();
                continue;
            }
            uint32_t to = nodes_[rule].seen[next++];
            if (nodes_[to].state == OPEN)
                left_recursion(to);
            if (nodes_[to].state == NEW) {
                nodes_[to].state = OPEN;
                path.push_back({to, 0});
            }
        }
    }

    /* All rules of a group can begin with each other. Where nothing follows the reference, as in
     * what a repetition becomes, the matcher comes back to the same place and stops; else the place
     * is a deeper one each time, without end. */
    void close_group(uint32_t root)
    {
        size_t at = open_.size();
        double stacks = 0;

        while (open_[--at] != root)
            ;
        for (size_t i = at; i < open_.size(); i++) {
            node &n = nodes_[open_[i]];
            stacks += n.leaves;
            for (const edge &e : n.first) {
                if (!nodes_[e.to].open)
                    stacks += nodes_[e.to].stacks;
                else if (nodes_[e.to].low >= nodes_[root].order && !e.tail)
                    left_recursion(e.to);
            }
        }
        for (size_t i = at; i < open_.size(); i++) {
            nodes_[open_[i]].stacks = stacks;
            nodes_[open_[i]].open = false;
        }
        open_.resize(at);
        widest_ = std::max(widest_, stacks);
        if (stacks > stacks_max)
            throw shape_error{ERR_LIMIT, root, "a rule can begin in too many ways"};
    }

    void meet(uint32_t rule)
    {
        nodes_[rule].order = nodes_[rule].low = ++n_met_;
        nodes_[rule].open = true;
        open_.push_back(rule);
    }

    /* Tarjan's algorithm for strongly connected components (SIAM J. Comput. 1, 1972). */
    void group(uint32_t root)
    {
        std::vector<std::pair<uint32_t, size_t>> path = {{root, 0}};

        meet(root);
        while (!path.empty()) {
            auto &[rule, next] = path.back();
            node &n = nodes_[rule];
            if (next < n.first.size()) {
                uint32_t to = n.first[next++].to;
                if (nodes_[to].order == 0) {
                    meet(to);
                    path.push_back({to, 0});
                } else if (nodes_[to].open) {
                    n.low = std::min(n.low, nodes_[to].order);
                }
                continue;
            }
            uint32_t done = rule;
            path.pop_back();
            if (nodes_[done].low == nodes_[done].order)
                close_group(done);
            else
                nodes_[path.back().first].low =
                    std::min(nodes_[path.back().first].low, nodes_[done].low);
        }
    }
};

struct grammar_free {
    void operator()(llama_grammar *g) const
    {
        llama_grammar_free_impl(g);
    }
};

struct trigger {
    enum trigger_kind kind;
    std::string text;
    int32_t token;
    std::regex regex; /* PATTERN, PATTERN_FULL */
};

const size_t window = 1024;          /* bytes of the answer that patterns see */
const size_t buffer_max = 16 * 1024; /* it is cut to `kept` then */
const size_t kept = 2 * 1024;        /* more than window and than the longest trigger word */

std::string piece_of(const llama_vocab *vocab, int32_t token)
{
    std::string s(64, '\0');
    int n = llama_token_to_piece(vocab, token, &s[0], (int)s.size(), 0, true);

    if (n < 0) {
        s.resize((size_t)-n);
        n = llama_token_to_piece(vocab, token, &s[0], (int)s.size(), 0, true);
    }
    s.resize(n > 0 ? (size_t)n : 0);
    return s;
}

/* The line of `tail`, a pointer into text. */
int line_of(const char *text, const char *tail)
{
    int line = 1;

    for (; text < tail; text++)
        line += *text == '\n';
    return line;
}

/* llama.cpp's complaints end with all the text from the place on. */
enum err syntax_error(const char *text, const char *rule, const char *what, struct err_text *et)
{
    size_t n = strlen(text);
    const char *at = strstr(what, " at ");

    if (at && strlen(at + 4) <= n && strcmp(text + n - strlen(at + 4), at + 4) == 0)
        return err_set(et, ERR_INPUT, "grammar, line %d: %.*s%s%.*s",
                       line_of(text, text + n - strlen(at + 4)), (int)(at - what), what,
                       at[4] ? " at " : " at the end",
                       (int)std::min<size_t>(40, strcspn(at + 4, "\n")), at + 4);
    return err_set(et, ERR_INPUT, "grammar, rule in line %d: %.200s", line_of(text, rule), what);
}

const char *space_skip(const char *s)
{
    while (*s == ' ' || *s == '\t' || *s == '\r' || *s == '\n' || *s == '#') {
        if (*s == '#')
            s += strcspn(s, "\r\n");
        else
            s++;
    }
    return s;
}

/* Groups and repetitions are rules, too, named after the one they are in: "root_2". */
std::string name_of(const llama_grammar_parser &p, uint32_t rule)
{
    for (const auto &s : p.symbol_ids)
        if (s.second == rule)
            return s.first.substr(0, s.first.find('_'));
    return "?";
}

enum err rules_check(const llama_grammar_parser &p, double *widest, struct err_text *et)
{
    if (p.symbol_ids.find("root") == p.symbol_ids.end())
        return err_set(et, ERR_INPUT, "grammar has no rule named root to begin with");
    for (const auto &s : p.symbol_ids)
        if (s.second >= p.rules.size() || p.rules[s.second].empty())
            return err_set(et, ERR_INPUT, "grammar uses the rule %.100s but does not define it",
                           s.first.c_str());
    try {
        *widest = Shape(p.rules).check();
    } catch (const shape_error &e) {
        return err_set(et, e.e, "grammar, rule %.100s: %s", name_of(p, e.rule).c_str(), e.what);
    }
    return ERR_NONE;
}

enum err grammar_read(const llama_vocab *vocab, const char *text,
                      std::unique_ptr<llama_grammar, grammar_free> &out, double *widest,
                      struct err_text *et)
{
    llama_grammar_parser p(vocab);
    const char *at = space_skip(text);
    enum err e;

    while (*at) {
        try {
            at = p.parse_rule(at);
        } catch (const std::bad_alloc &) {
            throw;
        } catch (const std::exception &x) {
            return syntax_error(text, at, x.what(), et);
        }
    }
    e = rules_check(p, widest, et);
    if (e)
        return e;
    auto rules = p.c_rules();
    out.reset(llama_grammar_init_impl(vocab, rules.data(), rules.size(), p.symbol_ids.at("root")));
    return out ? ERR_NONE : err_set(et, ERR_INPUT, "grammar cannot be used: llama.cpp refuses it");
}

} // namespace

struct shim_grammar {
    const llama_vocab *vocab = nullptr;
    std::unique_ptr<llama_grammar, grammar_free> g;
    std::vector<trigger> triggers;
    std::string begin; /* what is still to be generated first */
    double widest = 0; /* stacks it may begin with */
    bool waiting = false;
    /* While waiting: the end of the answer, the tokens it is made of with their places in it, and
     * the tokens refused at this place. */
    std::string buffer;
    std::vector<std::pair<int32_t, size_t>> tokens;
    std::vector<int32_t> refused;
    bool cut = false; /* the buffer has lost its beginning */

    size_t find(const trigger &t, const std::string &text, size_t n_old) const;
    bool begins(int32_t token, size_t *start) const;
    bool replay(size_t start);
    bool fits(int32_t token) const;
};

/* Whether the token goes on with what is to come first, or beyond it. */
bool shim_grammar::fits(int32_t token) const
{
    if (begin.empty())
        return true;
    std::string piece = piece_of(vocab, token);
    return !llama_vocab_is_eog(vocab, token) && !piece.empty() &&
           begin.compare(0, piece.size(), piece, 0, begin.size()) == 0;
}

/* Where t's part of the text begins, npos when it is not there; it was not in the first n_old
 * bytes. */
size_t shim_grammar::find(const trigger &t, const std::string &text, size_t n_old) const
{
    std::smatch m;

    if (t.kind == TRIGGER_WORD)
        return text.find(t.text, n_old - std::min(n_old, t.text.size() - 1));
    bool all = !cut && text.size() <= window;
    size_t skip = text.size() - std::min(text.size(), window);
    if (t.kind == TRIGGER_PATTERN_FULL) {
        if (!all || !std::regex_match(text, m, t.regex))
            return std::string::npos;
    } else if (!std::regex_search(text.begin() + (ptrdiff_t)skip, text.end(), m, t.regex,
                                  all ? std::regex_constants::match_default
                                      : std::regex_constants::match_not_bol)) {
        return std::string::npos;
    }
    for (size_t i = 1; i < m.size(); i++)
        if (m.length(i) > 0)
            return (size_t)(m[i].first - text.begin());
    return (size_t)(m[0].first - text.begin());
}

/* Whether the grammar begins with this token, which stands at the buffer's end; and where. */
bool shim_grammar::begins(int32_t token, size_t *start) const
{
    for (const auto &t : triggers)
        if (t.kind == TRIGGER_TOKEN && t.token == token) {
            *start = tokens.back().second;
            return true;
        }
    for (const auto &t : triggers) {
        if (t.kind == TRIGGER_TOKEN)
            continue;
        *start = find(t, buffer, tokens.back().second);
        if (*start != std::string::npos)
            return true;
    }
    return false;
}

/* Gives the grammar the buffer from start on. False when it does not allow that. */
bool shim_grammar::replay(size_t start)
{
    for (size_t i = 0; i < tokens.size(); i++) {
        size_t from = tokens[i].second;
        size_t to = i + 1 < tokens.size() ? tokens[i + 1].second : buffer.size();
        if (to <= start)
            continue;
        from = std::max(from, start);
        try {
            llama_grammar_accept_token(*g, tokens[i].first, buffer.substr(from, to - from));
        } catch (const std::bad_alloc &) {
            throw;
        } catch (const std::exception &) {
            return false;
        }
    }
    return true;
}

extern "C" enum err shim_grammar_new(const struct llama_vocab *vocab, const struct grammar *g,
                                     struct shim_grammar **out, struct err_text *et)
{
    *out = nullptr;
    return guarded(et, "read the grammar", [&] {
        auto s = std::make_unique<shim_grammar>();
        s->vocab = vocab;
        s->waiting = g->lazy;
        s->begin = g->begin && !g->lazy ? g->begin : "";
        enum err e = grammar_read(vocab, g->text, s->g, &s->widest, et);
        if (e)
            return e;
        for (int i = 0; g->lazy && i < g->n_triggers; i++) {
            trigger t = {g->triggers[i].kind, "", g->triggers[i].token, std::regex()};
            if (t.kind != TRIGGER_TOKEN)
                t.text = g->triggers[i].text;
            if (t.kind == TRIGGER_PATTERN || t.kind == TRIGGER_PATTERN_FULL)
                t.regex = std::regex(t.text);
            s->triggers.push_back(std::move(t));
        }
        if (!g->lazy && g->prefix && *g->prefix) {
            try {
                llama_grammar_accept_str(*s->g, g->prefix);
            } catch (const std::exception &) {
                return err_set(et, ERR_INPUT, "grammar does not begin as the prompt ends");
            }
        }
        *out = s.release();
        return ERR_NONE;
    });
}

extern "C" void shim_grammar_free(struct shim_grammar *g)
{
    delete g;
}

extern "C" struct shim_grammar *shim_grammar_clone(const struct shim_grammar *g)
{
    try {
        auto s = std::make_unique<shim_grammar>();
        s->vocab = g->vocab;
        s->g.reset(llama_grammar_clone_impl(*g->g));
        s->triggers = g->triggers;
        s->waiting = g->waiting;
        s->widest = g->widest;
        s->begin = g->begin;
        s->buffer = g->buffer;
        s->tokens = g->tokens;
        s->refused = g->refused;
        s->cut = g->cut;
        return s.release();
    } catch (...) {
        return nullptr;
    }
}

/* While waiting everything may come, but for a token that completes a trigger and goes on with
 * what the grammar does not allow. */
static bool allows_waiting(struct shim_grammar *g, int32_t token)
{
    size_t n_old = g->buffer.size(), start;
    bool yes = true;

    g->tokens.push_back({token, n_old});
    g->buffer += piece_of(g->vocab, token);
    if (g->begins(token, &start)) {
        auto stacks = g->g->stacks;
        auto partial = g->g->partial_utf8;
        yes = g->replay(start);
        g->g->stacks = std::move(stacks);
        g->g->partial_utf8 = partial;
    }
    g->tokens.pop_back();
    g->buffer.resize(n_old);
    if (!yes)
        g->refused.push_back(token);
    return yes;
}

extern "C" enum err shim_grammar_allows(struct shim_grammar *g, int32_t token, bool *yes,
                                        struct err_text *et)
{
    return guarded(et, "match the grammar", [&] {
        struct llama_token_data one = {token, 1, 0};
        struct llama_token_data_array a = {&one, 1, -1, false};
        if (g->waiting) {
            *yes = llama_vocab_is_eog(g->vocab, token) || allows_waiting(g, token);
        } else {
            llama_grammar_apply_impl(*g->g, &a);
            *yes = one.logit != -INFINITY && g->fits(token);
        }
        return ERR_NONE;
    });
}

extern "C" enum err shim_grammar_mask(struct shim_grammar *g, struct llama_token_data *data, int *n,
                                      struct err_text *et)
{
    return guarded(et, "match the grammar", [&] {
        struct llama_token_data_array a = {data, (size_t)*n, -1, false};
        int left = 0;
        if (!g->waiting)
            llama_grammar_apply_impl(*g->g, &a);
        for (int i = 0; g->waiting && i < *n; i++)
            for (int32_t r : g->refused)
                if (data[i].id == r)
                    data[i].logit = -INFINITY;
        for (int i = 0; i < *n; i++)
            if (data[i].logit != -INFINITY && g->fits(data[i].id))
                data[left++] = data[i];
        *n = left;
        return ERR_NONE;
    });
}

static void accept_waiting(struct shim_grammar *g, int32_t token)
{
    size_t start;

    g->refused.clear();
    g->tokens.push_back({token, g->buffer.size()});
    g->buffer += piece_of(g->vocab, token);
    if (g->begins(token, &start)) {
        g->waiting = false;
        g->replay(start); /* allowed: it was asked about */
        g->buffer.clear();
        g->tokens.clear();
        return;
    }
    if (g->buffer.size() <= buffer_max)
        return;
    size_t first = 0;
    while (g->buffer.size() - g->tokens[first].second > kept)
        first++;
    size_t gone = g->tokens[first].second;
    g->tokens.erase(g->tokens.begin(), g->tokens.begin() + (ptrdiff_t)first);
    for (auto &t : g->tokens)
        t.second -= gone;
    g->buffer.erase(0, gone);
    g->cut = true;
}

extern "C" enum err shim_grammar_accept(struct shim_grammar *g, int32_t token, struct err_text *et)
{
    return guarded(et, "match the grammar", [&] {
        if (llama_vocab_is_eog(g->vocab, token))
            return ERR_NONE; /* the answer is over */
        if (g->waiting)
            accept_waiting(g, token);
        else
            llama_grammar_accept_impl(*g->g, token);
        if (!g->begin.empty())
            g->begin.erase(0, piece_of(g->vocab, token).size());
        if ((double)g->g->stacks.size() > stacks_more + 2 * g->widest)
            return err_set(et, ERR_LIMIT,
                           "the grammar is too ambiguous: the answer so far matches it in %zu ways",
                           g->g->stacks.size());
        return ERR_NONE;
    });
}
