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
#include <cpuid.h>

#define FEATURE(f)                                                                                 \
    {                                                                                              \
        f, __builtin_cpu_supports(f) != 0                                                          \
    }

enum cpuid_register { EAX, EBX, ECX, EDX };

/* One bit of a CPUID leaf (Intel's manual, volume 2A, CPUID). */
static bool cpuid_bit(unsigned leaf, unsigned subleaf, enum cpuid_register reg, int bit)
{
    unsigned r[4] = {0};

    return __get_cpuid_count(leaf, subleaf, &r[EAX], &r[EBX], &r[ECX], &r[EDX]) &&
           (r[reg] >> bit & 1);
}

static bool cpu_has(const char *name)
{
    const struct {
        const char *name;
        bool have;
    } features[] = {
        FEATURE("sse4.2"),
        FEATURE("avx"),
        FEATURE("avx2"),
        FEATURE("fma"),
        FEATURE("bmi"),
        FEATURE("bmi2"),
        FEATURE("avx512f"),
        FEATURE("avx512bw"),
        FEATURE("avx512dq"),
        FEATURE("avx512vl"),
        FEATURE("avx512cd"),
        FEATURE("avx512vbmi"),
        FEATURE("avx512vnni"),
        FEATURE("avx512bf16"),
        FEATURE("avx512vbmi2"),
        FEATURE("avx512ifma"),
        FEATURE("avx512bitalg"),
        FEATURE("avx512vpopcntdq"),
        /* not every compiler's __builtin_cpu_supports knows these */
        {"f16c", cpuid_bit(1, 0, ECX, 29)},
        {"gfni", cpuid_bit(7, 0, ECX, 8)},
        {"vaes", cpuid_bit(7, 0, ECX, 9)},
        {"vpclmulqdq", cpuid_bit(7, 0, ECX, 10)},
        {"avx512fp16", cpuid_bit(7, 0, EDX, 23)},
        {"amx-int8", cpuid_bit(7, 0, EDX, 25)},
        {"avxvnni", cpuid_bit(7, 1, EAX, 4)},
    };

    for (size_t i = 0; i < sizeof features / sizeof features[0]; i++)
        if (strcmp(features[i].name, name) == 0)
            return features[i].have;
    return false; /* a name we cannot ask about is one we cannot vouch for */
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
    return false;
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

/* Which kernels run is settled when they are compiled, by the widest of these; bf16 and fp16
 * arithmetic, where there is any, rounds differently from widening to f32 first. The number behind
 * counts how often kernels of our own have changed the bits since. */
const char *model_kernels(void)
{
#if defined(__x86_64__)
    if (engine_uses("avx512bf16"))
        return "x86-64 avx512 vnni bf16, 2";
    if (engine_uses("avx512vnni"))
        return "x86-64 avx512 vnni, 2";
    if (engine_uses("avx512f"))
        return "x86-64 avx512, 2";
    return engine_uses("avx2") ? "x86-64 avx2, 2" : "x86-64";
#elif defined(__aarch64__)
    if (engine_uses("sve"))
        return "arm64 sve";
    if (engine_uses("i8mm"))
        return engine_uses("fp16") ? "arm64 i8mm fp16" : "arm64 i8mm";
    if (engine_uses("dotprod"))
        return engine_uses("fp16") ? "arm64 dotprod fp16" : "arm64 dotprod";
    return "arm64";
#else
    return "portable";
#endif
}
