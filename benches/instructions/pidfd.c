/* Gives Valgrind 3.19, which does not know pidfd_open, a descriptor that never
 * becomes readable instead: nobody dies while instructions are counted. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <dlfcn.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

long syscall(long number, ...)
{
    static long (*real)(long, ...);
    long a[6];
    va_list arguments;

    va_start(arguments, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(arguments, long);
    va_end(arguments);
    if (number == SYS_pidfd_open)
        return eventfd(0, EFD_CLOEXEC);
    if (!real)
        real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
