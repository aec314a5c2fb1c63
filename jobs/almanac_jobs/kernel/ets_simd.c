/* The likelihood of an ETS model and its derivatives by all parameters, which are carried along in vectors. */
#include <math.h>
#include <string.h>

#include "ets.h"

#define CONCAT_(a, b) a##_##b
#define CONCAT(a, b) CONCAT_(a, b)
#define INLINE static inline __attribute__((always_inline))

typedef ets_vector vd;

static const double SMALL = 1e-10; /* where mu, or a seasonal factor, is no longer positive */

INLINE void clear(vd *vectors, int count) { memset(vectors, 0, sizeof(vd) * (size_t)count); }
INLINE double *numbers(vd *vectors) { return (double *)vectors; }

/* The states before y_1, with their derivatives. */
INLINE void begin(ets_run *run, const double *x, const int vectors, const int season) {
    const ets_layout *at = run->at;
    const int m = at->model.m;
    clear(run->dl, vectors);
    clear(run->db, vectors);
    run->level = x[at->level];
    numbers(run->dl)[at->level] = 1;
    run->growth = at->model.trend ? x[at->growth] : 0;
    if (at->model.trend) numbers(run->db)[at->growth] = 1;
    if (!season) return;
    clear(run->ds, vectors * m);
    run->s[m - 1] = season == 2 ? m : 0;
    for (int j = 0; j < m - 1; j++) {
        run->s[j] = x[at->season + j];
        run->s[m - 1] -= run->s[j];
        numbers(run->ds + j * vectors)[at->season + j] = 1;
        numbers(run->ds + (m - 1) * vectors)[at->season + j] = -1;
    }
}

/* The objective at a point, with gradient and matrix by the smoothing parameters themselves; the matrix' lower triangle only.
 * `vectors`, `season` and `multiplicative` are compile-time constants in the instances for common models. */
INLINE double objective(ets_run *run, ets_point *to, const int vectors, const int season, const int multiplicative) {
    const ets_layout *at = run->at;
    const int size = at->size, m = at->model.m, trend = at->model.trend;
    const ets_smoothing k = ets_smoothing_at(at, to->x);
    vd *restrict dl = run->dl, *restrict db = run->db, *restrict dq = run->dq, *restrict de = run->de, *restrict dlog = run->dlog,
       *restrict gradient = to->gradient, *restrict matrix = to->matrix;
    begin(run, to->x, vectors, season);
    clear(dlog, vectors);
    clear(gradient, vectors);
    clear(matrix, vectors * size);
    double l = run->level, b = run->growth, S = 0, product = 1, logs = 0;
    for (int64_t t = 0, j = 0; t < run->n; t++, j = j + 1 == m ? 0 : j + 1) {
        vd *restrict ds = run->ds + j * vectors;
        double q = l + k.phi * b, s = season ? run->s[j] : 0, mu = season == 0 ? q : season == 1 ? q + s : q * s;
        if (multiplicative && !(mu > SMALL && (season < 2 || s > SMALL))) return INFINITY;
        double r = run->y[t] - mu, per_mu = multiplicative ? 1 / mu : 0, e = multiplicative ? r * per_mu : r;
        double per_s = season == 2 ? 1 / s : 1, per_q = season == 2 ? 1 / q : 1, rl = r * per_s, rs = r * per_q;
        for (int c = 0; c < vectors; c++) dq[c] = dl[c] + k.phi * db[c];
        if (trend == 2) numbers(dq)[at->phi] += b;
        for (int c = 0; c < vectors; c++) {
            vd dmu = season == 0 ? dq[c] : season == 1 ? dq[c] + ds[c] : dq[c] * s + ds[c] * q;
            vd drl = season == 2 ? -(dmu + rl * ds[c]) * per_s : -dmu;
            vd drs = season == 2 ? -(dmu + rs * dq[c]) * per_q : -dmu;
            dl[c] = dq[c] + k.alpha * drl;
            if (trend) db[c] = k.phi * db[c] + k.beta * drl;
            if (season) ds[c] += k.gamma * drs;
            de[c] = multiplicative ? dmu * (-(1 + e) * per_mu) : -dmu;
            if (multiplicative) dlog[c] += dmu * per_mu;
        }
        numbers(dl)[at->alpha] += rl;
        if (trend) numbers(db)[at->beta] += rl;
        if (trend == 2) numbers(db)[at->phi] += b;
        if (season) numbers(ds)[at->gamma] += rs;
        l = q + k.alpha * rl;
        b = k.phi * b + k.beta * rl;
        if (season) run->s[j] = s + k.gamma * rs;
        S += e * e;
        for (int c = 0; c < vectors; c++) gradient[c] += de[c] * e;
        for (int i = 0; i < size; i++) {
            double one = numbers(de)[i];
            for (int c = 0; c <= i / ETS_LANES; c++) matrix[i * vectors + c] += one * de[c];
        }
        if (!multiplicative) continue;
        product *= mu;
        if (product > 1e100 || product < 1e-100) logs += log(product), product = 1;
    }
    run->level = l, run->growth = b, to->S = S;
    const double per_n = 1 / (double)run->n;
    if (!multiplicative) return log(S * per_n);
    /* d(e w) = w (de + e dlog w), dlog w the mean of dlog mu; the common factor w^2 is left out. */
    for (int c = 0; c < vectors; c++) dlog[c] *= per_n;
    for (int i = 0; i < size; i++) {
        double along = numbers(gradient)[i] + S * numbers(dlog)[i], across = numbers(dlog)[i];
        for (int c = 0; c <= i / ETS_LANES; c++) matrix[i * vectors + c] += along * dlog[c] + across * gradient[c];
    }
    for (int c = 0; c < vectors; c++) gradient[c] += S * dlog[c];
    return log(S * per_n) + 2 * per_n * (logs + log(product));
}

/* The chain rule from smoothing parameters to the box in which they are searched, and the matrix' other triangle. */
static void into_box(const ets_layout *at, ets_point *to) {
    const int size = at->size, row = at->vectors * ETS_LANES, alpha = at->alpha, inner[2] = {at->beta, at->gamma};
    const double *x = to->x, width[2] = {x[alpha] - ETS_LOWER, 1 - x[alpha] - ETS_LOWER};
    double *g = numbers(to->gradient), *A = numbers(to->matrix);
    for (int i = 0; i < size; i++)
        for (int j = i + 1; j < size; j++) A[i * row + j] = A[j * row + i];
    for (int which = 0; which < 2; which++) {
        const int k = inner[which];
        if (k < 0) continue;
        const double rate = which == 0 ? x[k] : -x[k]; /* of the parameter by alpha */
        for (int i = 0; i < size; i++) {
            A[i * row + alpha] += rate * A[i * row + k];
            A[i * row + k] *= width[which];
        }
        for (int j = 0; j < size; j++) {
            A[alpha * row + j] += rate * A[k * row + j];
            A[k * row + j] *= width[which];
        }
        g[alpha] += rate * g[k];
        g[k] *= width[which];
    }
}

/* Fills f, S, gradient and matrix at to->x, and leaves the states after the last value in `run`. */
void CONCAT(ets_evaluate, LEVEL)(ets_run *run, ets_point *to) {
    const ets_model *model = &run->at->model;
    const int vectors = run->at->vectors;
#define FOR_SIZE(season, multiplicative)                                                                                   \
    (vectors == 1   ? objective(run, to, 1, season, multiplicative)                                                        \
     : vectors == 2 ? objective(run, to, 2, season, multiplicative)                                                        \
     : vectors == 3 ? objective(run, to, 3, season, multiplicative)                                                        \
                    : objective(run, to, vectors, season, multiplicative))
    if (model->season == 0) to->f = model->multiplicative ? objective(run, to, 1, 0, 1) : objective(run, to, 1, 0, 0);
    else if (model->season == 1) to->f = model->multiplicative ? FOR_SIZE(1, 1) : FOR_SIZE(1, 0);
    else to->f = FOR_SIZE(2, 1);
    if (isnan(to->f)) to->f = INFINITY;
    if (to->f < INFINITY) into_box(run->at, to);
}
