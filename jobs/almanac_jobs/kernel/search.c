/* Where a search starts, how it steps, and when it has arrived. One search at a time; nothing here looks at the data twice. */
#include <math.h>
#include <string.h>

#include "arma.h"

enum { MAX_EVALUATIONS = 80, MAX_REJECTIONS = 12 };
static const double LONGEST_STEP = 1.5; /* of mu, in standard deviations of the series */
/* A step goes at most this share of the way to the edge. The likelihood is flat across the edge of invertibility, so that a search
 * for an optimum there comes ten times closer with every step, and one for an optimum just inside is never stuck on the edge. */
static const double TO_THE_EDGE = 0.9;
static const double STATIONARY = 1 - 1e-6; /* nearer to a unit root the stationary variance swamps the precision of a double */
static const double ENOUGH = 1e-8; /* nats of log-likelihood that one more step is predicted to gain */

static const double NEAR = 0.03, NEAR_VALUE = 0.05; /* in u, and in nats: two ends this close are one optimum */
enum { PATIENCE = 4 };                       /* evaluations before a search may be given up */
static const double HOPE = 20;               /* times the gain that its next step promises: how much it may still catch up */

/* Solves (H + D) x = b for a symmetric positive definite matrix by Cholesky; returns 0 where it is not. */
static int solve(int k, const double h[MAX_PARAMETERS][MAX_PARAMETERS], const double *damping, const double *b, double *x) {
    double l[MAX_PARAMETERS][MAX_PARAMETERS];
    for (int i = 0; i < k; i++) {
        for (int j = 0; j <= i; j++) {
            double sum = h[i][j] + (i == j ? damping[i] : 0);
            for (int a = 0; a < j; a++) sum -= l[i][a] * l[j][a];
            if (i == j) {
                if (!(sum > 0)) return 0;
                l[i][i] = sqrt(sum);
            } else {
                l[i][j] = sum / l[j][j];
            }
        }
    }
    for (int i = 0; i < k; i++) {
        double sum = b[i];
        for (int a = 0; a < i; a++) sum -= l[i][a] * x[a];
        x[i] = sum / l[i][i];
    }
    for (int i = k - 1; i >= 0; i--) {
        double sum = x[i];
        for (int a = i + 1; a < k; a++) sum -= l[a][i] * x[a];
        x[i] = sum / l[i][i];
    }
    return 1;
}

/* What the quadratic model promises of a step, per observation. */
static double promise(const arma_search *search, const double *step) {
    double gain = 0;
    for (int i = 0; i < search->k; i++) {
        double bent = 0;
        for (int j = 0; j < search->k; j++) bent += search->at.h[i][j] * step[j];
        gain -= step[i] * (search->at.g[i] + 0.5 * bent);
    }
    return gain;
}

/* Proposes the next trial from `at` with the present damping; returns 0 where none can be had. */
static int propose(arma_search *search, const arma_model *model) {
    int k = search->k, free = k - model->constant;
    for (; search->rejections <= MAX_REJECTIONS; search->rejections++, search->lambda = fmax(search->lambda * 8, 1e-3)) {
        double damping[MAX_PARAMETERS], minus[MAX_PARAMETERS], step[MAX_PARAMETERS];
        for (int i = 0; i < k; i++) {
            damping[i] = search->lambda * (fabs(search->at.h[i][i]) + 1e-4);
            minus[i] = -search->at.g[i];
        }
        if (!solve(k, search->at.h, damping, minus, step)) continue;
        for (int i = 0; i < k; i++) {
            if (!isfinite(step[i])) break;
            int seasonal = i - model->p - model->q;
            double edge = i < model->p || (seasonal >= 0 && seasonal < model->P) ? STATIONARY : 1;
            double room = i >= free ? LONGEST_STEP : TO_THE_EDGE * (edge + (step[i] > 0 ? -search->u[i] : search->u[i]));
            if (fabs(step[i]) > room) step[i] = copysign(room, step[i]);
            search->trial[i] = search->u[i] + step[i];
        }
        search->predicted = promise(search, step);
        if (search->predicted > 0) return 1;
        if (search->lambda > 1e6) break;
    }
    return 0;
}

/* Moves to `value`, learning from the change of the gradient what the Gauss-Newton matrix cannot know: a symmetric rank-one update
 * of the missing part (structured quasi-Newton, as in Dennis, Gay and Welsch 1981). Without it the search crawls along the ridge
 * where AR and MA factors nearly cancel. */
static void move(arma_search *search, const arma_value *value) {
    int k = search->k;
    double step[MAX_PARAMETERS], lack[MAX_PARAMETERS], along = 0, lack2 = 0, step2 = 0;
    for (int i = 0; i < k; i++) step[i] = search->trial[i] - search->u[i];
    for (int i = 0; i < k; i++) {
        lack[i] = value->g[i] - search->at.g[i];
        for (int j = 0; j < k; j++) lack[i] -= (value->h[i][j] + search->bend[i][j]) * step[j];
        along += lack[i] * step[i];
        lack2 += lack[i] * lack[i];
        step2 += step[i] * step[i];
    }
    memcpy(search->u, search->trial, sizeof search->u);
    search->at = *value;
    int informative = search->started && along * along > 1e-6 * lack2 * step2 && along != 0;
    for (int i = 0; i < k; i++)
        for (int j = 0; j < k; j++) {
            if (informative) search->bend[i][j] += lack[i] * lack[j] / along;
            search->at.h[i][j] += search->bend[i][j];
        }
}

void arma_search_start(arma_search *search, int k, int n, const double *u) {
    memset(search, 0, sizeof *search);
    search->k = k;
    search->n = n;
    search->lambda = 1e-3;
    memcpy(search->u, u, sizeof(double) * (size_t)k);
    memcpy(search->trial, u, sizeof(double) * (size_t)k);
    search->at.f = INFINITY;
}

int arma_search_step(arma_search *search, const arma_value *value, const arma_model *model) {
    search->evaluations++;
    int first = !search->started;
    if (isfinite(value->f) && value->f <= search->at.f) {
        double gained = first ? INFINITY : search->at.f - value->f;
        move(search, value);
        if (!first) search->lambda *= 0.15;
        search->started = 1;
        search->rejections = 0;
        if (search->k == 0 || search->n * fmax(gained, search->predicted) < ENOUGH) {
            search->converged = 1;
            return 0;
        }
    } else if (first) {
        return 0;
    } else {
        /* A step this short that is still refused is refused by rounding: the search has arrived. */
        if (search->n * search->predicted < ENOUGH) {
            search->converged = 1;
            return 0;
        }
        search->lambda = fmax(search->lambda * 8, 1e-3);
        search->rejections++;
    }
    if (search->evaluations >= MAX_EVALUATIONS) return 0;
    if (!propose(search, model)) return 0;
    if (first && search->n * search->predicted < 1e-3 * ENOUGH) search->converged = 1;
    return !search->converged;
}

/* The largest standard error along any direction of kappa: 1 / sqrt(n * smallest eigenvalue), by inverse iteration. */
static double uncertainty(const arma_search *search, const arma_model *model) {
    enum { ROUNDS = 20 };
    int free = search->k - model->constant;
    double h[MAX_PARAMETERS][MAX_PARAMETERS], none[MAX_PARAMETERS], x[MAX_PARAMETERS], y[MAX_PARAMETERS], size = 0, last = 0;
    for (int i = 0; i < free; i++) {
        for (int j = 0; j < free; j++) h[i][j] = search->at.h[i][j] - search->bend[i][j];
        none[i] = 1e-9 * h[i][i] + 1e-300;
        x[i] = 1.0 + 0.1 * i;
    }
    if (free == 1) return 1 / sqrt(search->n * h[0][0]);
    if (free == 2) {
        double mean = 0.5 * (h[0][0] + h[1][1]), apart = 0.5 * (h[0][0] - h[1][1]);
        double smallest = mean - sqrt(apart * apart + h[0][1] * h[0][1]);
        return smallest > 0 ? 1 / sqrt(search->n * smallest) : INFINITY;
    }
    for (int round = 0; round < ROUNDS && free > 0 && !(fabs(size - last) < 1e-3 * size && round > 1); round++) {
        if (!solve(free, h, none, x, y)) return INFINITY;
        last = size;
        size = 0;
        for (int i = 0; i < free; i++) size += y[i] * y[i];
        size = sqrt(size);
        for (int i = 0; i < free; i++) x[i] = y[i] / size;
    }
    return sqrt(size / search->n);
}

void arma_keep(arma_fit *fit, const arma_search *search, const arma_model *model) {
    fit->evaluations += search->evaluations;
    if (!(search->at.f < fit->objective)) return;
    fit->objective = search->at.f;
    fit->decrement = search->n * search->predicted;
    fit->converged = search->converged;
    fit->uncertainty = uncertainty(search, model);
    memcpy(fit->u, search->u, sizeof fit->u);
}

int arma_beaten(const arma_fit *fit, const arma_search *search) {
    double behind = search->at.f - fit->objective;
    if (search->evaluations >= PATIENCE && behind > HOPE * search->predicted) return 1;
    if (!(fabs(behind) * search->n < NEAR_VALUE)) return 0;
    for (int i = 0; i < search->k; i++)
        if (!(fabs(search->u[i] - fit->u[i]) < NEAR)) return 0;
    return 1;
}

/* Coefficients -> free parameters by stepping down, kept well inside; NaN and explosive values end at the edge. */
static void free_from_coefficients(int n, const double *coefficients, double *u) {
    double a[MAX_FACTOR], b[MAX_FACTOR];
    memcpy(a, coefficients, sizeof(double) * (size_t)n);
    for (int order = n; order > 0; order--) {
        double kappa = a[order - 1];
        if (!(kappa < 0.9)) kappa = 0.9;
        if (!(kappa > -0.9)) kappa = -0.9;
        u[order - 1] = kappa;
        for (int i = 0; i < order - 1; i++) b[i] = (a[i] + kappa * a[order - 2 - i]) / (1 - kappa * kappa);
        memcpy(a, b, sizeof(double) * (size_t)(order > 0 ? order - 1 : 0));
    }
}

/* Hannan and Rissanen's idea without the second regression: a long autoregression pi(B) by Durbin and Levinson, then theta from
 * pi(B) theta(B) = phi(B), whose coefficients vanish beyond lag p. Missing values are left out of the autocovariances. */
static void moment_start(int p, int q, const double *w, int64_t n, double *u) {
    enum { LAGS = 2 * MAX_FACTOR + 2 };
    int lags = p + 2 * q + 1 < LAGS ? p + 2 * q + 1 : LAGS;
    if (lags > n / 4) lags = (int)(n / 4);
    if (lags < p + q || p + q == 0) {
        for (int i = 0; i < p + q; i++) u[i] = 0;
        return;
    }
    double gamma[LAGS + 1], pi[LAGS + 1] = {0}, last[LAGS + 1], theta[MAX_FACTOR] = {0}, phi[MAX_FACTOR] = {0};
    for (int lag = 0; lag <= lags; lag++) {
        double sum = 0;
        for (int64_t t = lag; t < n; t++) {
            double product = w[t] * w[t - lag];
            if (product == product) sum += product;
        }
        gamma[lag] = sum;
    }
    double variance = gamma[0];
    for (int order = 0; order < lags && variance > 0; order++) {
        double kappa = gamma[order + 1];
        for (int i = 0; i < order; i++) kappa -= pi[i] * gamma[order - i];
        kappa /= variance;
        memcpy(last, pi, sizeof last);
        pi[order] = kappa;
        for (int i = 0; i < order; i++) pi[i] = last[i] - kappa * last[order - 1 - i];
        variance *= 1 - kappa * kappa;
    }
    if (q > 0) { /* sum_i theta_i pi_{j-i} = -(-pi_j) for j = p+1 ..., least squares through the normal equations */
        double h[MAX_PARAMETERS][MAX_PARAMETERS] = {{0}}, b[MAX_PARAMETERS] = {0}, damping[MAX_PARAMETERS];
        for (int j = p + 1; j <= lags; j++)
            for (int i = 1; i <= q; i++) {
                double row = j - i > 0 ? -pi[j - i - 1] : (j == i ? 1 : 0);
                b[i - 1] += row * pi[j - 1];
                for (int l = 1; l <= q; l++) h[i - 1][l - 1] += row * (j - l > 0 ? -pi[j - l - 1] : (j == l ? 1 : 0));
            }
        for (int i = 0; i < q; i++) damping[i] = 1e-6 + 1e-3 * h[i][i];
        if (!solve(q, h, damping, b, theta)) memset(theta, 0, sizeof theta);
    }
    for (int j = 1; j <= p; j++) { /* -phi_j = -pi_j + theta_j + sum_i theta_i (-pi_{j-i}) */
        double value = pi[j - 1] - (j <= q ? theta[j - 1] : 0);
        for (int i = 1; i <= q && i < j; i++) value += theta[i - 1] * pi[j - i - 1];
        phi[j - 1] = value;
    }
    free_from_coefficients(p, phi, u);
    for (int i = 0; i < q; i++) theta[i] = -theta[i];
    free_from_coefficients(q, theta, u + p);
}

/* First-lag partial autocorrelations (ar, ma, seasonal ar, seasonal ma) that between them lie in every basin seen on simulated and
 * journal data; ma = 0.9 means theta = -0.9. The fourth leads to the optima with a root at the highest frequency. */
static const double STARTS[][4] = {
    {0.0, 0.9, 0.0, 0.5}, {0.7, 0.3, 0.3, 0.5}, {-0.6, -0.6, 0.0, 0.0}, {-0.93, -0.98, 0.0, 0.3}, {0.9, 0.7, 0.5, 0.8}, {-0.5, 0.5, -0.4, 0.3},
};
enum { TABLE = sizeof STARTS / sizeof *STARTS, FREQUENCIES = 6 };

/* A pair of conjugate roots of modulus 1 / radius at `angle`, as the first two partial autocorrelations. */
static void conjugate_pair(double radius, double angle, double *u) {
    u[0] = 2 * radius * cos(angle) / (1 + radius * radius);
    u[1] = -radius * radius;
}

void arma_start(const arma_model *model, const double *w, int64_t n, int s, double *u) {
    int p = model->p, q = model->q, P = model->P, Q = model->Q, k = arma_parameters(model);
    for (int i = 0; i < k; i++) u[i] = 0;
    if (s == 0) {
        moment_start(p, q, w, n, u);
        if (Q > 0) u[p + q + P] = 0.4;
        if (P > 0 && Q == 0) u[p + q] = 0.3;
        return;
    }
    const double *kappa = STARTS[(s - 1) % TABLE];
    if (p > 0) u[0] = kappa[0];
    if (q > 0) u[p] = kappa[1];
    if (P > 0) u[p + q] = kappa[2];
    if (Q > 0) u[p + q + P] = kappa[3];
    if (s <= TABLE) return;
    if (p >= 2 && q >= 2 && s <= TABLE + FREQUENCIES) {
        /* A dip of the spectrum: moving-average roots on the circle, autoregressive ones close behind, at one frequency. */
        double angle = 3.14159265358979323846 * (s - TABLE) / (FREQUENCIES + 1);
        conjugate_pair(0.85, angle, u);
        conjugate_pair(0.98, angle, u + p);
        return;
    }
    for (int i = 0; i < k - model->constant; i++) { /* a Kronecker sequence, the same for every series */
        double x = (double)s * sqrt(2.0 + 3.0 * i);
        u[i] = 1.6 * (x - floor(x)) - 0.8;
    }
}
