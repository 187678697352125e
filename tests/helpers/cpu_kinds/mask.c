/* Makes a process see an older x86 CPU: the CPUID instruction faults (arch_prctl ARCH_SET_CPUID, Linux on CPUs that can
 * fault it), and the handler answers without the instruction sets named in U2EDGE_HIDE_CPUID. Libraries that choose
 * their kernels by CPUID then run those of the older CPU, at full speed. Loaded with LD_PRELOAD, so children inherit it.
 *
 * U2EDGE_HIDE_CPUID: comma-separated leaf:subleaf:register:mask in hexadecimal, e.g. 7:0:b:40000000. */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define MOST 32
static struct { uint32_t leaf, subleaf; char reg; uint32_t mask; } hidden[MOST];
static int count;
static struct sigaction theirs; /* what the program wanted SIGSEGV to do */
static int (*real_sigaction)(int, const struct sigaction *, struct sigaction *);

static void answer(int signal_number, siginfo_t *info, void *context) {
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *code = (const uint8_t *)r[REG_RIP];
    /* A general protection fault has no address; a wild jump has one, and its code cannot be read. */
    if (info->si_code == SI_KERNEL && code[0] == 0x0f && code[1] == 0xa2) {
        uint32_t a = (uint32_t)r[REG_RAX], c = (uint32_t)r[REG_RCX], leaf = a, subleaf = c, b, d;
        syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1);
        __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
        syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0);
        for (int i = 0; i < count; i++)
            if (hidden[i].leaf == leaf && hidden[i].subleaf == subleaf)
                switch (hidden[i].reg) {
                    case 'a': a &= ~hidden[i].mask; break;
                    case 'b': b &= ~hidden[i].mask; break;
                    case 'c': c &= ~hidden[i].mask; break;
                    case 'd': d &= ~hidden[i].mask; break;
                }
        r[REG_RAX] = a, r[REG_RBX] = b, r[REG_RCX] = c, r[REG_RDX] = d;
        r[REG_RIP] += 2;
        return;
    }
    if (theirs.sa_flags & SA_SIGINFO) {
        theirs.sa_sigaction(signal_number, info, context);
    } else if (theirs.sa_handler == SIG_DFL || theirs.sa_handler == SIG_IGN) {
        struct sigaction fall = {.sa_handler = SIG_DFL};
        real_sigaction(SIGSEGV, &fall, NULL); /* the instruction faults again, and ends the process */
    } else {
        theirs.sa_handler(signal_number);
    }
}

/* On the stack of the thread: the one that faulthandler sets up for faults may be too small, or gone. */
static void install(void) {
    struct sigaction ours = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER};
    real_sigaction(SIGSEGV, &ours, NULL);
}

/* faulthandler and others set SIGSEGV: they are called for every other fault. */
int sigaction(int number, const struct sigaction *act, struct sigaction *old) {
    if (!real_sigaction) real_sigaction = dlsym(RTLD_NEXT, "sigaction");
    if (number != SIGSEGV || !count) return real_sigaction(number, act, old);
    struct sigaction before = theirs;
    if (act) theirs = *act;
    if (old) *old = before;
    return 0;
}

sighandler_t signal(int number, sighandler_t handler) {
    struct sigaction act = {.sa_handler = handler, .sa_flags = SA_RESTART}, old;
    return sigaction(number, &act, &old) ? SIG_ERR : old.sa_handler;
}

__attribute__((constructor)) static void start(void) {
    const char *text = getenv("U2EDGE_HIDE_CPUID");
    if (!real_sigaction) real_sigaction = dlsym(RTLD_NEXT, "sigaction");
    while (text && *text && count < MOST) {
        if (sscanf(text, "%x:%x:%c:%x", &hidden[count].leaf, &hidden[count].subleaf, &hidden[count].reg, &hidden[count].mask) != 4) break;
        count++;
        text = strchr(text, ',');
        if (text) text++;
    }
    if (!count) return;
    install();
    if (syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0)) {
        fputs("mask: this kernel or CPU cannot fault CPUID\n", stderr);
        _exit(111);
    }
}
