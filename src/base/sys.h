/* What the machine is and how much of it we use. Linux first; where a figure cannot be had, the
 * function says so by 0. */
#ifndef LINGUA_BASE_SYS_H
#define LINGUA_BASE_SYS_H

#include <stddef.h>
#include <stdint.h>

int64_t clock_us(
    void);           /* monotonic, microseconds; the pure parts take this as an argument instead */
int sys_cores(void); /* cores this process may run on (its affinity mask), at least 1 */
uint64_t sys_resident_bytes(void);  /* this process now, shared file pages included */
uint64_t sys_available_bytes(void); /* what the system could still give without swapping */

/* "aarch64 Linux" */
void sys_kind(char *buf, size_t cap);
/* The address other machines of the local network most likely reach this one by; "" when there is
 * none but loopback. */
void sys_local_address(char *buf, size_t cap);

#endif
