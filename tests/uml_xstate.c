/*
 * Loaded before linux.uml on processors with AMX. UML 6.1 keeps the processor's state up to
 * AVX-512, and Linux (x86/fpu/regset.c) takes it back only whole: what is missing is what the
 * process has at that moment.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

static char whole[1 << 16];

long ptrace(enum __ptrace_request request, ...)
{
    static long (*real)(enum __ptrace_request, ...);
    va_list words;
    va_start(words, request);
    pid_t process = va_arg(words, pid_t);
    void *address = va_arg(words, void *), *data = va_arg(words, void *);
    va_end(words);

    if (!real)
        real = (long (*)(enum __ptrace_request, ...))dlsym(RTLD_NEXT, "ptrace");
    if (request == PTRACE_SETREGSET && (long)address == NT_X86_XSTATE) {
        struct iovec *given = data, all = {whole, sizeof whole};
        if (!real(PTRACE_GETREGSET, process, address, &all) && all.iov_len > given->iov_len) {
            memcpy(whole, given->iov_base, given->iov_len);
            return real(request, process, address, &all);
        }
    }
    return real(request, process, address, data);
}
