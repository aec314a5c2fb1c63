/* The entry points: the fit for this processor, and what is kept of a fitted series. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "arma.h"

#define DECLARE(level) \
    int arma_fit_complete_##level(const arma_model *, int64_t, const double *, const int64_t *, int32_t, arma_fit *)
#ifdef X86_LEVELS
int x86_level(void);
DECLARE(x86_64_v2);
DECLARE(x86_64_v3);
DECLARE(x86_64_v4);
#else
DECLARE(generic);
#endif

int arma_fit_complete(const arma_model *model, int64_t n_series, const double *w, const int64_t *offsets, int32_t starts,
                      arma_fit *fits) {
#ifdef X86_LEVELS
    const int level = x86_level();
    if (level >= 4) return arma_fit_complete_x86_64_v4(model, n_series, w, offsets, starts, fits);
    if (level >= 3) return arma_fit_complete_x86_64_v3(model, n_series, w, offsets, starts, fits);
    return arma_fit_complete_x86_64_v2(model, n_series, w, offsets, starts, fits);
#else
    return arma_fit_complete_generic(model, n_series, w, offsets, starts, fits);
#endif
}

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
        /* The stationary covariance, P = T P T' + G G': its first row follows from c = T P Z' + G, the rest along diagonals. */
        cov[0] = F - 1;
        for (int j = 0; j + 1 < r; j++) cov[(j + 1) * r] = cov[j + 1] = c[j] - ar[j] * cov[0] - (ar[j] + ma[j]);
        for (int a = 1; a < r; a++)
            for (int b = 1; b <= a; b++) {
                double before = cov[(a - 1) * r + b - 1], row = cov[a * r], column = cov[b * r];
                double value = before - ar[a - 1] * ar[b - 1] * cov[0] - ar[a - 1] * column - ar[b - 1] * row -
                               (ar[a - 1] + ma[a - 1]) * (ar[b - 1] + ma[b - 1]);
                cov[a * r + b] = cov[b * r + a] = value;
            }
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
