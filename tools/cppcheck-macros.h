/* What cppcheck must know of macros in system headers, which it does not read. */
#define json_array_foreach(a, i, v)  for (i = 0; (v = json_array_get(a, i)); i++)
#define json_object_foreach(o, k, v) for (k = first(o); (v = json_object_get(o, k)); k = next(k))
#define TAILQ_HEAD(name, type)                                                                     \
    struct name {                                                                                  \
        struct type *first;                                                                        \
    }
#define TAILQ_ENTRY(type)                                                                          \
    struct {                                                                                       \
        struct type *next;                                                                         \
    }
#define TAILQ_FOREACH(v, head, field) for (v = (head)->first; v; v = v->field.next)
