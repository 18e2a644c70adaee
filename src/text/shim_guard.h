/* For the C++ files of src/text: what every function that C calls is wrapped in. */
#ifndef LINGUA_TEXT_SHIM_GUARD_H
#define LINGUA_TEXT_SHIM_GUARD_H

#include <exception>
#include <new>

extern "C" {
#include "base/err.h"
}

/* Runs f and turns whatever it throws into an error. */
template <class F> enum err guarded(struct err_text *et, const char *doing, F f)
{
    try {
        return f();
    } catch (const std::bad_alloc &) {
        return err_set(et, ERR_MEMORY, "%s: out of memory", doing);
    } catch (const std::exception &e) {
        return err_set(et, ERR_INPUT, "%s: %s", doing, e.what());
    } catch (...) {
        return err_set(et, ERR_INPUT, "%s: an unnamed error inside llama.cpp", doing);
    }
}

/* llama.cpp and its common library write to stderr, which belongs to our caller, and what they
 * write may be a person's text. Their logs are global state we cannot avoid; this turns them off
 * once. */
void shim_quiet();

#endif
