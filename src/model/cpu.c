/* Compiled without the engine's CPU flags, so that it can speak on a CPU that lacks them.
 * LINGUA_ENGINE_CPU is the list of features the engine was compiled to use, taken from the
 * compiler's own macros (cmake/engine.cmake). */
#include <stdbool.h>
#include <string.h>

#include "model/model.h"

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

#ifndef LINGUA_ENGINE_CPU
#define LINGUA_ENGINE_CPU ""
#endif

#if defined(__x86_64__)
#define FEATURE(f)                                                                                 \
    {                                                                                              \
        f, __builtin_cpu_supports(f) != 0                                                          \
    }

static bool cpu_has(const char *name)
{
    const struct {
        const char *name;
        bool have;
    } features[] = {FEATURE("sse4.2"),     FEATURE("avx"),          FEATURE("avx2"),
                    FEATURE("fma"),        FEATURE("bmi"),          FEATURE("bmi2"),
                    FEATURE("avx512f"),    FEATURE("avx512bw"),     FEATURE("avx512dq"),
                    FEATURE("avx512vl"),   FEATURE("avx512cd"),     FEATURE("avx512vbmi"),
                    FEATURE("avx512vnni"), FEATURE("avx512bf16"),   FEATURE("avx512vbmi2"),
                    FEATURE("avx512ifma"), FEATURE("avx512bitalg"), FEATURE("avx512vpopcntdq")};

    for (size_t i = 0; i < sizeof features / sizeof features[0]; i++)
        if (strcmp(features[i].name, name) == 0)
            return features[i].have;
    return true; /* not one we can ask about */
}
#elif defined(__aarch64__)
static bool cpu_has(const char *name)
{
    /* Bits of the kernel's hwcap words (arch/arm64 uapi). */
    const struct {
        const char *name;
        unsigned long word, bit;
    } features[] = {{"dotprod", AT_HWCAP, 1ul << 20},
                    {"fp16", AT_HWCAP, 1ul << 10},
                    {"sve", AT_HWCAP, 1ul << 22},
                    {"i8mm", AT_HWCAP2, 1ul << 13},
                    {"bf16", AT_HWCAP2, 1ul << 14}};

    for (size_t i = 0; i < sizeof features / sizeof features[0]; i++)
        if (strcmp(features[i].name, name) == 0)
            return getauxval(features[i].word) & features[i].bit;
    return true;
}
#else
static bool cpu_has(const char *name)
{
    (void)name;
    return true;
}
#endif

/* LINGUA_ENGINE_CPU is a list of USES("feature"). */
#define USES(f)                                                                                    \
    {                                                                                              \
        f, "this CPU has no " f                                                                    \
           ", which this build of lingua uses; build it on this machine, or run `make portable`"   \
    }

static const struct {
    const char *name, *why;
} used[] = {LINGUA_ENGINE_CPU{"", ""}};

static bool engine_uses(const char *name)
{
    for (size_t i = 0; i < sizeof used / sizeof used[0]; i++)
        if (strcmp(used[i].name, name) == 0)
            return true;
    return false;
}

const char *model_cpu_unsuited(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init(); /* we may run before the constructor that does it */
#endif
    for (size_t i = 0; i < sizeof used / sizeof used[0]; i++)
        if (used[i].name[0] && !cpu_has(used[i].name))
            return used[i].why;
    return NULL;
}

/* Which of ggml's kernels run is settled when it is compiled, by the widest of these. */
const char *model_kernels(void)
{
#if defined(__x86_64__)
    if (engine_uses("avx512vnni"))
        return "x86-64 avx512 vnni";
    if (engine_uses("avx512f"))
        return "x86-64 avx512";
    return engine_uses("avx2") ? "x86-64 avx2" : "x86-64";
#elif defined(__aarch64__)
    if (engine_uses("i8mm"))
        return "arm64 i8mm";
    return engine_uses("dotprod") ? "arm64 dotprod" : "arm64";
#else
    return "portable";
#endif
}
