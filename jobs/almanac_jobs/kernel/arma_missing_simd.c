/* Series with missing values: a Kalman filter over the undifferenced series, one series at a time.
 *
 * The state is the ARMA part x (r) of arma_simd.c followed by the last `lags` values of y, so that a value that is missing leaves its
 * uncertainty behind in them. The lanes hold points of the parameter space for the same series: the point asked for and one on either
 * side of it along every parameter, from which central differences give derivatives and residuals' slopes.
 *
 * The likelihood is that of the observations given the first `lags` values of y; those of them that are missing have a flat prior,
 * as the limit of a normal one with variance DIFFUSE, which costs each one observation.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lanes.h"

static const double DIFFUSE = 1e7;     /* in units of sigma^2 of the scaled series */
static const double DISTANCE = 1e-5;   /* of central differences */
static const double VANISHED = 1e-15;  /* a covariance this small is none */

typedef struct {
    const arma_model *model;
    int lags, r, size;      /* size = r + lags */
    const double *delta;    /* y_t = w_t + sum_j delta[j] y_{t-1-j} */
    const double *y;        /* with NaN; the first `lags` values filled in, see `unknown` */
    const uint8_t *unknown; /* of the first `lags` values, those that were missing */
    int64_t n;
} series_view;

typedef struct {
    vd *ar, *g, *a, *next, *P, *Q, *PZ; /* r, r, size, size, size^2, size^2, size */
    vd F, mu, S;
    double *plain;
} kalman;

/* The state for the time after the first `lags` values. */
static void start_filter(kalman *f, const series_view *s, double points[LANES][MAX_PARAMETERS]) {
    const int r = s->r, size = s->size, p = arma_ar_order(s->model), q = arma_ma_order(s->model);
    const int k = arma_parameters(s->model);
    double *ar = f->plain, *ma = ar + r, *c = ma + r, *d = c + r, *e = d + k * r, *work = e + k * r;
    memset(f->P, 0, sizeof(vd) * (size_t)(size * size));
    memset(f->a, 0, sizeof(vd) * (size_t)size);
    for (int l = 0; l < LANES; l++) {
        double F, *cov = work + arma_work(s->model);
        arma_expand(s->model, points[l], ar, ma, d, e);
        arma_initial(p, q, r, 0, ar, ma, NULL, NULL, &F, NULL, c, NULL, work);
        arma_stationary(r, ar, ma, F, c, cov);
        for (int i = 0; i < r; i++) f->ar[i][l] = ar[i], f->g[i][l] = ar[i] + ma[i];
        for (int i = 0; i < r; i++)
            for (int j = 0; j < r; j++) f->P[i * size + j][l] = cov[i * r + j];
        f->mu[l] = s->model->constant ? points[l][k - 1] : 0;
    }
    for (int j = 0; j < s->lags; j++) { /* lag j is y at time lags - 1 - j */
        f->a[r + j] = all(s->y[s->lags - 1 - j]);
        if (s->unknown[s->lags - 1 - j]) f->P[(r + j) * size + r + j] = all(DIFFUSE);
    }
}

/* One step to the next time; returns the innovation, zero where y is NaN. */
static vd step_filter(kalman *f, const series_view *s, double y, int *certain) {
    const int r = s->r, lags = s->lags, size = s->size, seen = y == y;
    vd *a = f->a, *P = f->P, *PZ = f->PZ, predicted = f->mu + a[0], v = all(0);
    for (int j = 0; j < lags; j++) predicted += s->delta[j] * a[r + j];
    if (*certain) {
        f->F = all(1);
    } else {
        for (int i = 0; i < size; i++) {
            PZ[i] = P[i * size];
            for (int j = 0; j < lags; j++)
                if (s->delta[j] != 0) PZ[i] += s->delta[j] * P[i * size + r + j];
        }
        vd F = PZ[0] + 1;
        for (int j = 0; j < lags; j++) F += s->delta[j] * PZ[r + j];
        f->F = F;
    }
    if (seen) v = y - predicted;
    vd x0 = a[0], iF = 1 / f->F;
    /* M = T P Z' + H, the numerator of the gain */
    for (int i = 0; i < r; i++) {
        vd m = f->g[i];
        if (!*certain) m += f->ar[i] * PZ[0] + (i + 1 < r ? PZ[i + 1] : all(0));
        f->next[i] = m;
        a[i] = f->ar[i] * x0 + (i + 1 < r ? a[i + 1] : all(0)) + (seen ? m * (v * iF) : all(0));
    }
    for (int j = lags - 1; j > 0; j--) {
        vd m = *certain ? all(0) : PZ[r + j - 1];
        f->next[r + j] = m;
        a[r + j] = a[r + j - 1] + (seen ? m * (v * iF) : all(0));
    }
    if (lags > 0) {
        f->next[r] = f->F;
        a[r] = seen ? all(y) : predicted;
    }
    if (*certain && seen) return v;
    vd *Q = f->Q;
    if (*certain) {
        memset(P, 0, sizeof(vd) * (size_t)(size * size));
        memset(PZ, 0, sizeof(vd) * (size_t)size);
    }
    for (int i = 0; i < size; i++)
        for (int j = 0; j <= i; j++) {
            vd value;
            if (i < r) {
                value = f->ar[i] * f->ar[j] * P[0] + f->g[i] * f->g[j];
                if (j + 1 < r) value += f->ar[i] * P[j + 1];
                if (i + 1 < r) value += f->ar[j] * P[i + 1];
                if (i + 1 < r && j + 1 < r) value += P[(i + 1) * size + j + 1];
            } else if (i == r) {
                value = j == r ? f->F : f->ar[j] * PZ[0] + (j + 1 < r ? PZ[j + 1] : all(0)) + f->g[j];
            } else if (j < r) {
                value = f->ar[j] * P[i - 1] + (j + 1 < r ? P[(i - 1) * size + j + 1] : all(0));
            } else {
                value = j == r ? PZ[i - 1] : P[(i - 1) * size + j - 1];
            }
            if (seen) value -= f->next[i] * f->next[j] * iF;
            Q[i * size + j] = Q[j * size + i] = value;
        }
    if (seen && lags > 0) /* y_t is known now, to the last bit */
        for (int i = 0; i < size; i++) Q[r * size + i] = Q[i * size + r] = all(0);
    f->Q = P;
    f->P = Q;
    *certain = seen;
    if (seen) {
        for (int i = 0; i < size * size && *certain; i++) *certain = !any((vi)(absolute(Q[i]) > all(VANISHED)));
    }
    return v;
}

/* Runs the filter over one series for all lanes: S, sum log F and the standardised innovations, time by lane. */
static int64_t run_filter(kalman *f, const series_view *s, double points[LANES][MAX_PARAMETERS], double L[LANES], vd *residuals) {
    start_filter(f, s, points);
    product variances = product_of_nothing();
    int64_t seen = 0;
    int certain = 0, valid = 1;
    vd S = all(0);
    memset(residuals, 0, sizeof(vd) * (size_t)(s->n - s->lags));
    for (int64_t t = s->lags; t < s->n; t++) {
        vd v = step_filter(f, s, s->y[t], &certain);
        if (s->y[t] != s->y[t]) continue;
        valid &= !any((vi)(f->F < all(1 - 1e-6)));
        S += v * v / f->F;
        for (int l = 0; l < LANES; l++) residuals[seen][l] = v[l] / sqrt(f->F[l]);
        variances.mantissa *= f->F;
        product_normalise(&variances);
        seen++;
    }
    f->S = S;
    for (int l = 0; l < LANES; l++) L[l] = valid ? product_log(&variances, l) : NAN;
    for (int j = 0; j < s->lags; j++)
        if (s->unknown[j]) {
            seen--;
            for (int l = 0; l < LANES; l++) L[l] -= log(DIFFUSE);
        }
    return seen;
}

/* How far the central difference by u_i reaches: beyond the edge of invertibility, where the filter works, but not of stationarity. */
static double distance(const arma_model *model, const double *u, int i) {
    int seasonal = i - model->p - model->q;
    int autoregressive = i < model->p || (seasonal >= 0 && seasonal < model->P);
    return autoregressive ? fmin(DISTANCE, 0.5 * (1 - fabs(u[i]))) : DISTANCE;
}

/* Value, gradient and Gauss-Newton matrix at u, in passes of four parameters; the first lane left over holds u itself. */
static void evaluate(kalman *f, const series_view *s, const double *u, vd *residuals, double *slopes, arma_value *value) {
    const int k = arma_parameters(s->model);
    const int64_t rows = s->n - s->lags;
    double base = NAN;
    for (int first = 0; first <= k; first += LANES / 2) {
        double points[LANES][MAX_PARAMETERS], L[LANES];
        for (int l = 0; l < LANES; l++) {
            int i = first + l / 2;
            memcpy(points[l], u, sizeof points[l]);
            if (i < k) points[l][i] += (l % 2 ? 1 : -1) * distance(s->model, u, i);
        }
        double count = (double)run_filter(f, s, points, L, residuals);
        for (int i = first, l = 0; l < LANES; i++, l += 2) {
            double low = 0.5 * (log(f->S[l] / count) + L[l] / count);
            if (i >= k) {
                base = f->S[l];
                value->f = count > 0 ? low : NAN;
                break;
            }
            double high = 0.5 * (log(f->S[l + 1] / count) + L[l + 1] / count), width = points[l + 1][i] - points[l][i];
            value->g[i] = (high - low) / width;
            for (int64_t t = 0; t < rows; t++) slopes[i * rows + t] = (residuals[t][l + 1] - residuals[t][l]) / width;
        }
    }
    for (int i = 0; i < k; i++)
        for (int j = 0; j <= i; j++) {
            double sum = 0;
            for (int64_t t = 0; t < rows; t++) sum += slopes[i * rows + t] * slopes[j * rows + t];
            value->h[i][j] = value->h[j][i] = sum / base;
        }
}

static int64_t space_for(const arma_model *model, int lags, int64_t longest, int64_t *plain) {
    int64_t r = arma_state(model), k = arma_parameters(model), size = r + lags;
    *plain = 3 * r + 2 * k * r + arma_work(model) + r * r + k * longest + 64;
    return 2 * r + 3 * size + 2 * size * size + longest + 1;
}

/* Fits series with NaN inside; the first `lags` values of each are filled in where `unknown` says
 * that they were missing. Gives the innovation variance, the number of observations that count, and the state after the last value
 * (size) with its covariance in units of sigma2 (lower triangle by rows). Returns 0 when out of memory. */
int CONCAT(arma_missing, LEVEL)(const arma_model *model, int32_t lags, const double *delta, int64_t n_series, const double *y,
                                const int64_t *offsets, const uint8_t *unknown, int32_t starts, arma_fit *fits, double *sigma2,
                                int64_t *counts, double *states, double *covariances) {
    const int r = arma_state(model), size = r + lags, k = arma_parameters(model), triangle = size * (size + 1) / 2;
    int64_t longest = 0, plain;
    for (int64_t i = 0; i < n_series; i++)
        if (offsets[i + 1] - offsets[i] > longest) longest = offsets[i + 1] - offsets[i];
    int64_t wide = space_for(model, lags, longest, &plain);
    vd *space = aligned_alloc(sizeof(vd), (size_t)wide * sizeof(vd));
    kalman f = {.plain = malloc((size_t)plain * sizeof(double))};
    if (space == NULL || f.plain == NULL) {
        free(space);
        free(f.plain);
        return 0;
    }
    vd *at = space;
    f.ar = at, at += r, f.g = at, at += r, f.a = at, at += size, f.next = at, at += size, f.PZ = at, at += size;
    f.P = at, at += size * size, f.Q = at, at += size * size;
    double *slopes = f.plain + plain - k * longest - 1;
    for (int64_t i = 0; i < n_series; i++) {
        series_view s = {model, lags, r, size, delta, y + offsets[i], unknown + i * lags, offsets[i + 1] - offsets[i]};
        memset(&fits[i], 0, sizeof fits[i]);
        fits[i].objective = INFINITY;
        int64_t seen = 0;
        for (int64_t t = lags; t < s.n; t++) seen += s.y[t] == s.y[t];
        for (int j = 0; j < lags; j++) seen -= s.unknown[j];
        for (int start = 0; start < starts; start++) {
            arma_search search;
            arma_value value;
            double u[MAX_PARAMETERS];
            arma_start(model, s.y, 0, start, u);
            arma_search_start(&search, k, (int)seen, u);
            do {
                evaluate(&f, &s, search.trial, at, slopes, &value);
            } while (arma_search_step(&search, &value, model) && !arma_beaten(&fits[i], &search));
            arma_keep(&fits[i], &search, model);
        }
        double points[LANES][MAX_PARAMETERS], L[LANES];
        for (int l = 0; l < LANES; l++) memcpy(points[l], fits[i].u, sizeof points[l]);
        counts[i] = run_filter(&f, &s, points, L, at);
        sigma2[i] = f.S[0] / (double)counts[i];
        for (int a = 0, to = 0; a < size; a++) {
            states[i * size + a] = f.a[a][0];
            for (int b = 0; b <= a; b++, to++) covariances[i * triangle + to] = f.P[a * size + b][0];
        }
    }
    free(space);
    free(f.plain);
    return 1;
}
