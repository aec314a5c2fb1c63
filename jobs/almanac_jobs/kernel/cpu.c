/* Which level of x86-64 this processor and its operating system offer. Asked of the processor itself: the answer that compilers
 * have built in, __builtin_cpu_supports, needs a run-time library that not every compiler brings. */
#ifdef X86_LEVELS
#include <cpuid.h>
#include <stdint.h>

static int has(uint32_t set, uint32_t bits) { return (set & bits) == bits; }

int x86_level(void) {
    enum { XMM_YMM = 0x6, OPMASK_ZMM = 0xe0 };
    const uint32_t avx512 = bit_AVX512F | bit_AVX512DQ | bit_AVX512CD | bit_AVX512BW | bit_AVX512VL;
    uint32_t eax, ebx, ecx, edx, saved, high;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !has(ecx, bit_OSXSAVE | bit_AVX | bit_FMA)) return 2;
    __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0)); /* the registers that the system saves between processes */
    if (!has(saved, XMM_YMM) || !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || !has(ebx, bit_AVX2 | bit_BMI | bit_BMI2)) return 2;
    return has(saved, OPMASK_ZMM) && has(ebx, avx512) ? 4 : 3;
}
#endif
