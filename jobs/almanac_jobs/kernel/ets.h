/* Maximum likelihood of exponential smoothing (ETS) models: what the files of this part of the kernel share.
 *
 * A model is in innovations form (Hyndman, Koehler, Ord and Snyder 2008, tables 2.2 and 2.3), with level l, growth b and m seasonal
 * terms s, of a complete series y_1 ... y_n:
 *
 *     q = l + phi b,   mu = q, q + s or q s,   r = y - mu,   e = r (additive errors) or r / mu (multiplicative errors),
 *     l' = q + alpha r,   b' = phi b + beta r,   s' = s + gamma r      (with r / s for l and b and r / q for s where mu = q s).
 *
 * The free parameters are the smoothing parameters and the states before y_1, whose seasonal terms sum to 0, or to m where they
 * multiply. sigma^2 is concentrated out. The objective is
 *
 *     f = log(S/n) + (2/n) L,   S = sum e^2,   L = sum log mu for multiplicative errors and 0 for additive ones,
 *
 * that is -2 loglik/n - (1 + log 2 pi). With w the geometric mean of mu, n exp(f) = sum (e w)^2: a sum of squares in either case.
 */
#ifndef ALMANAC_ETS_H
#define ALMANAC_ETS_H

#include <stdint.h>

typedef struct {
    int32_t multiplicative; /* errors */
    int32_t trend;          /* 0 none, 1 additive, 2 damped */
    int32_t season;         /* 0 none, 1 additive, 2 multiplicative */
    int32_t m;
} ets_model;

/* What one fit gives. */
typedef struct {
    double objective; /* f at the optimum; +inf where no start could be evaluated */
    double decrement; /* predicted gain of log-likelihood of one more step: how far from the optimum, in nats */
    double squares;   /* S */
    double alpha, beta, gamma, phi;
    int32_t evaluations, converged;
} ets_fit;

enum { ETS_LANES = 8 };
typedef double ets_vector __attribute__((vector_size(8 * ETS_LANES)));

/* Where each parameter is in a point, -1 for those that the model does not have. The m - 1 free seasonal terms come last. */
typedef struct {
    ets_model model;
    int alpha, level, beta, growth, phi, gamma, season;
    int size, vectors; /* parameters, and vectors that hold one number for each */
} ets_layout;

/* A point x of the search with what Gauss and Newton's method needs there: half the gradient of the sum of squares, and the
 * matrix, a row of `vectors` vectors a parameter. */
typedef struct {
    double *x, f, S;
    ets_vector *gradient, *matrix;
} ets_point;

typedef struct {
    const ets_layout *at;
    const double *y;
    int64_t n;
    ets_vector *dl, *db, *dq, *ds, *de, *dlog; /* derivatives by all parameters; ds has a row a season */
    double *s, level, growth;                  /* the states after the last value */
} ets_run;

typedef struct {
    double alpha, beta, gamma, phi;
} ets_smoothing;

/* Smoothing parameters stay where the model is usual. They are searched as alpha, (beta - ETS_LOWER)/(alpha - ETS_LOWER),
 * (gamma - ETS_LOWER)/(1 - alpha - ETS_LOWER) and phi: a box. */
#define ETS_LOWER 1e-4
static inline ets_smoothing ets_smoothing_at(const ets_layout *at, const double *x) {
    ets_smoothing k = {.alpha = x[at->alpha], .phi = 1};
    if (at->beta >= 0) k.beta = ETS_LOWER + (k.alpha - ETS_LOWER) * x[at->beta];
    if (at->gamma >= 0) k.gamma = ETS_LOWER + (1 - k.alpha - ETS_LOWER) * x[at->gamma];
    if (at->phi >= 0) k.phi = x[at->phi];
    return k;
}

#endif
