/* Vectors of eight doubles, whatever the processor has, and the name of the level that a file is compiled for. */
#ifndef ALMANAC_LANES_H
#define ALMANAC_LANES_H

#include <math.h>
#include <stdint.h>

#include "arma.h"

#define CONCAT_(a, b) a##_##b
#define CONCAT(a, b) CONCAT_(a, b)
#define INLINE static inline __attribute__((always_inline))

typedef double vd __attribute__((vector_size(8 * LANES)));
typedef int64_t vi __attribute__((vector_size(8 * LANES)));

INLINE vd masked(vi mask, vd value) { return (vd)((vi)value & mask); }
INLINE vd choose(vi mask, vd yes, vd no) { return (vd)(((vi)yes & mask) | ((vi)no & ~mask)); }
INLINE vd absolute(vd value) { return (vd)((vi)value & INT64_MAX); }
INLINE vd all(double value) { return value - (vd){0}; }
INLINE int any(vi mask) {
    int64_t joined = 0;
    for (int l = 0; l < LANES; l++) joined |= mask[l];
    return joined != 0;
}

/* A running product of positive numbers whose exponent is taken out, in whole numbers, before it can overflow. */
typedef struct {
    vd mantissa, exponent;
} product;

INLINE product product_of_nothing(void) { return (product){all(1), all(0)}; }
INLINE void product_normalise(product *one) {
    vi bits = (vi)one->mantissa;
    one->exponent += __builtin_convertvector((bits >> 52) - 1023, vd);
    one->mantissa = (vd)((bits & 0x000fffffffffffffLL) | 0x3ff0000000000000LL);
}
INLINE double product_log(const product *one, int l) { return log(one->mantissa[l]) + one->exponent[l] * 0.6931471805599453094; }

#endif
