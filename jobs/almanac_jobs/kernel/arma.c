/* The entry points: the fit for this processor, and what is kept of a fitted series. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "arma.h"

/* FOR_THIS_PROCESSOR(name, arguments, call) defines name() to call its best instance, name_<level>(). */
#ifdef X86_LEVELS
int x86_level(void);
#define FOR_THIS_PROCESSOR(name, parameters, arguments) \
    int name##_x86_64_v2 parameters;                    \
    int name##_x86_64_v3 parameters;                    \
    int name##_x86_64_v4 parameters;                    \
    int name parameters {                               \
        const int level = x86_level();                  \
        if (level >= 4) return name##_x86_64_v4 arguments; \
        if (level >= 3) return name##_x86_64_v3 arguments; \
        return name##_x86_64_v2 arguments;              \
    }
#else
#define FOR_THIS_PROCESSOR(name, parameters, arguments) \
    int name##_generic parameters;                      \
    int name parameters { return name##_generic arguments; }
#endif

FOR_THIS_PROCESSOR(arma_complete,
                   (const arma_model *model, int64_t n_series, const double *w, const int64_t *offsets, int32_t starts,
                    arma_fit *fits),
                   (model, n_series, w, offsets, starts, fits))

FOR_THIS_PROCESSOR(arma_missing,
                   (const arma_model *model, int32_t lags, const double *delta, int64_t n_series, const double *y,
                    const int64_t *offsets, const uint8_t *unknown, int32_t starts, arma_fit *fits, double *sigma2,
                    int64_t *counts, double *states, double *covariances),
                   (model, lags, delta, n_series, y, offsets, unknown, starts, fits, sigma2, counts, states, covariances))

/* The free parameters of each fit as coefficients: ar, ma, seasonal ar, seasonal ma, mu; k numbers a series. */
void arma_coefficients(const arma_model *model, int64_t n_series, const arma_fit *fits, double *out) {
    int k = arma_parameters(model), sizes[4] = {model->p, model->q, model->P, model->Q};
    for (int64_t i = 0; i < n_series; i++) {
        const double *u = fits[i].u;
        double *to = out + i * k;
        for (int part = 0; part < 4; part++) {
            arma_model alone = {.p = sizes[part], .m = 1};
            double ar[MAX_FACTOR + 1], ma[MAX_FACTOR + 1], d[MAX_FACTOR * (MAX_FACTOR + 1)], e[MAX_FACTOR * (MAX_FACTOR + 1)];
            arma_expand(&alone, u, ar, ma, d, e);
            for (int j = 0; j < sizes[part]; j++) *to++ = part % 2 == 1 ? -ar[j] : ar[j];
            u += sizes[part];
        }
        if (model->constant) *to = *u;
    }
}

/* Runs each series through its fitted filter: sum of squares / n, the state x (r) predicted for the time after the last value,
 * and its covariance in units of sigma^2, the lower triangle by rows (r (r + 1) / 2). Returns 0 when out of memory. */
int arma_finish(const arma_model *model, int64_t n_series, const double *w, const int64_t *offsets, const arma_fit *fits,
                double *sigma2, double *states, double *covariances) {
    const int p = arma_ar_order(model), q = arma_ma_order(model), r = arma_state(model), k = arma_parameters(model);
    const int triangle = r * (r + 1) / 2;
    double *ar = malloc(sizeof(double) * ((size_t)(5 * r + 3 * k * r + r * r) + 32 + (size_t)arma_work(model)));
    if (ar == NULL) return 0;
    double *ma = ar + r, *c = ma + r, *Y = c + r, *dar = Y + r, *dma = dar + k * r, *dc = dma + k * r, *cov = dc + k * r,
           *dF = cov + r * r, *work = dF + 32;
    for (int64_t i = 0; i < n_series; i++) {
        const double *series = w + offsets[i], mu = model->constant ? fits[i].u[k - 1] : 0;
        double *x = states + i * r, F, S = 0;
        int64_t n = offsets[i + 1] - offsets[i];
        arma_expand(model, fits[i].u, ar, ma, dar, dma);
        arma_initial(p, q, r, k, ar, ma, dar, dma, &F, dF, c, dc, work);
        memcpy(Y, c, sizeof(double) * (size_t)r);
        memset(x, 0, sizeof(double) * (size_t)r);
        arma_stationary(r, ar, ma, F, c, cov);
        for (int64_t t = 0; t < n; t++) {
            double x0 = x[0], v = series[t] - mu - x0, e = v / F, s = Y[0], gain = s / F;
            int live = 0;
            S += v * e;
            for (int a = 0; a < r; a++) live |= fabs(Y[a]) > 1e-12;
            if (live)
                for (int a = 0; a < r; a++)
                    for (int b = 0; b <= a; b++) cov[a * r + b] -= Y[a] * Y[b] / F;
            F -= s * gain;
            for (int a = 0; a < r; a++) {
                double old = c[a], shifted = a + 1 < r ? Y[a + 1] : 0, next = a + 1 < r ? x[a + 1] : 0;
                double moved = ar[a] * s + shifted;
                c[a] = old - moved * gain;
                Y[a] = moved - old * gain;
                x[a] = ar[a] * x0 + next + old * e;
            }
        }
        sigma2[i] = S / (double)n;
        for (int a = 0, at = 0; a < r; a++)
            for (int b = 0; b <= a; b++, at++) covariances[i * triangle + at] = cov[a * r + b];
    }
    free(ar);
    return 1;
}
