/* From free parameters to lag polynomials, and from those to the stationary start of the innovations filter. */
#include <math.h>
#include <string.h>

#include "arma.h"

/* Partial autocorrelations u -> coefficients a (order n) by Durbin and Levinson, with derivatives da[j][i] by u_j. */
static void coefficients(int n, const double *u, double *a, double da[MAX_FACTOR][MAX_FACTOR]) {
    double previous[MAX_FACTOR], dprevious[MAX_FACTOR][MAX_FACTOR];
    if (n == 0) return;
    a[0] = u[0];
    da[0][0] = 1;
    if (n == 1) return;
    memset(da, 0, sizeof(double) * MAX_FACTOR * MAX_FACTOR);
    for (int order = 0; order < n; order++) {
        double kappa = u[order];
        memcpy(previous, a, sizeof(double) * (size_t)order);
        memcpy(dprevious, da, sizeof dprevious);
        a[order] = kappa;
        for (int i = 0; i < order; i++) a[i] = previous[i] - kappa * previous[order - 1 - i];
        for (int j = 0; j < order; j++)
            for (int i = 0; i < order; i++) da[j][i] = dprevious[j][i] - kappa * dprevious[j][order - 1 - i];
        for (int i = 0; i < order; i++) da[order][i] = -previous[order - 1 - i];
        da[order][order] = 1;
    }
}

/* One product polynomial a(B) A(B^m), both as 1 + sum sign_i: `sign` is -1 for AR (coefficients subtracted) and +1 for MA. */
static void multiply(int n, int N, int m, int r, double sign, const double *u, const double *U, double *out, double *d,
                     double *D) {
    double a[MAX_FACTOR], A[MAX_FACTOR], da[MAX_FACTOR][MAX_FACTOR], dA[MAX_FACTOR][MAX_FACTOR];
    coefficients(n, u, a, da);
    coefficients(N, U, A, dA);
    /* In both cases the polynomial with coefficients -a and -A is meant; MA is written with plus signs. */
    double out_sign = sign < 0 ? 1 : -1;
    for (int i = 0; i < n; i++) out[i] += out_sign * a[i];
    for (int I = 0; I < N; I++) {
        int lag = (I + 1) * m - 1;
        out[lag] += out_sign * A[I];
        for (int i = 0; i < n; i++) out[lag + i + 1] -= out_sign * A[I] * a[i];
    }
    for (int j = 0; j < n; j++)
        for (int i = 0; i < n; i++) {
            d[j * r + i] += out_sign * da[j][i];
            for (int I = 0; I < N; I++) d[j * r + (I + 1) * m + i] -= out_sign * A[I] * da[j][i];
        }
    for (int j = 0; j < N; j++)
        for (int I = 0; I < N; I++) {
            int lag = (I + 1) * m - 1;
            D[j * r + lag] += out_sign * dA[j][I];
            for (int i = 0; i < n; i++) D[j * r + lag + i + 1] -= out_sign * dA[j][I] * a[i];
        }
}

void arma_expand(const arma_model *model, const double *u, double *ar, double *ma, double *dar, double *dma) {
    int p = model->p, q = model->q, P = model->P, Q = model->Q, r = arma_state(model), k = arma_parameters(model);
    memset(ar, 0, sizeof(double) * (size_t)r);
    memset(ma, 0, sizeof(double) * (size_t)r);
    memset(dar, 0, sizeof(double) * (size_t)(k * r));
    memset(dma, 0, sizeof(double) * (size_t)(k * r));
    multiply(p, P, model->m, r, -1, u, u + p + q, ar, dar, dar + (p + q) * r);
    multiply(q, Q, model->m, r, 1, u + p, u + p + q + P, ma, dma + p * r, dma + (p + q + P) * r);
}

int64_t arma_work(const arma_model *model) {
    int64_t p = arma_ar_order(model), q = arma_ma_order(model), k = arma_parameters(model);
    return (1 + k) * (p * (p + 1) + p + (p + q + 1) + (q + 1) + (q + 1) + (p + 1));
}

/* ARMA(1,1), AR(1) and MA(1) in closed form: F = (1 + 2 phi theta + theta^2) / (1 - phi^2), c = phi F + theta. */
static void initial_of_one(int p, int q, int k, const double *dar, const double *dma, double phi, double theta, double *F,
                           double *dF, double *c, double *dc) {
    double below = 1 / (1 - phi * phi);
    *F = (1 + 2 * phi * theta + theta * theta) * below;
    *c = phi * *F + theta;
    for (int j = 0; j < k; j++) {
        double dphi = p ? dar[j] : 0, dtheta = q ? dma[j] : 0;
        dF[j] = (2 * (theta + phi * *F) * dphi + 2 * (phi + theta) * dtheta) * below;
        dc[j] = dphi * *F + phi * dF[j] + dtheta;
    }
}

/* Every quantity below is a row of 1 + k numbers: its value and its derivatives by the k parameters. */
void arma_initial(int p, int q, int r, int k, const double *ar, const double *ma, const double *dar, const double *dma,
                  double *F, double *dF, double *c, double *dc, double *work) {
    if (r == 1) {
        initial_of_one(p, q, k, dar, dma, p ? ar[0] : 0, q ? ma[0] : 0, F, dF, c, dc);
        return;
    }
    const int s = 1 + k;
    double *levels = work;                        /* levels[j][i]: coefficient i of the AR predictor of order j + 1 */
    double *variance = levels + s * p * (p + 1);  /* innovation variance of each order, from order 0 */
    double *gamma = variance + s * p;             /* autocovariances of the AR part alone, lags 0 .. p + q */
    double *rho = gamma + s * (p + q + 1);        /* sum_j theta_j theta_{j+l} */
    double *psi = rho + s * (q + 1);              /* weights of the MA representation */
    double *full = psi + s * (q + 1);             /* autocovariances of the ARMA process, lags 0 .. p */
#define AR(i, j) ((j) == 0 ? ar[i] : dar[((j)-1) * r + (i)])
#define MA(i, j) ((j) == 0 ? ma[i] : dma[((j)-1) * r + (i)])
#define LEVEL_AT(order, i) (levels + s * (((order)-1) * p + (i)))
    for (int i = 0; i < p; i++)
        for (int j = 0; j < s; j++) LEVEL_AT(p, i)[j] = AR(i, j);
    for (int order = p; order > 1; order--) { /* step down: the predictor of one order less */
        const double *kappa = LEVEL_AT(order, order - 1);
        double inverse = 1 / (1 - kappa[0] * kappa[0]);
        for (int i = 0; i < order - 1; i++) {
            const double *one = LEVEL_AT(order, i), *other = LEVEL_AT(order, order - 2 - i);
            double *out = LEVEL_AT(order - 1, i);
            out[0] = (one[0] + kappa[0] * other[0]) * inverse;
            for (int j = 1; j < s; j++)
                out[j] = (one[j] + kappa[j] * other[0] + kappa[0] * other[j] + out[0] * 2 * kappa[0] * kappa[j]) * inverse;
        }
    }
    memset(gamma, 0, sizeof(double) * (size_t)(s * (p + q + 1)));
    gamma[0] = 1;
    for (int order = 1; order <= p; order++) {
        const double *kappa = LEVEL_AT(order, order - 1);
        double inverse = 1 / (1 - kappa[0] * kappa[0]);
        gamma[0] *= inverse;
        for (int j = 1; j < s; j++) gamma[j] += 2 * kappa[0] * kappa[j] * inverse;
    }
    for (int j = 1; j < s; j++) gamma[j] *= gamma[0];
    for (int order = 1; order <= p; order++) {
        double *E = variance + s * (order - 1), *out = gamma + s * order;
        const double *kappa = LEVEL_AT(order, order - 1);
        if (order == 1) {
            memcpy(E, gamma, sizeof(double) * (size_t)s);
        } else {
            const double *last = LEVEL_AT(order - 1, order - 2), *before = E - s;
            double left = 1 - last[0] * last[0];
            E[0] = before[0] * left;
            for (int j = 1; j < s; j++) E[j] = before[j] * left - before[0] * 2 * last[0] * last[j];
        }
        out[0] = kappa[0] * E[0];
        for (int j = 1; j < s; j++) out[j] = kappa[j] * E[0] + kappa[0] * E[j];
        for (int i = 0; i < order - 1; i++) {
            const double *a = LEVEL_AT(order - 1, i), *g = gamma + s * (order - 1 - i);
            out[0] += a[0] * g[0];
            for (int j = 1; j < s; j++) out[j] += a[j] * g[0] + a[0] * g[j];
        }
    }
    for (int lag = p + 1; lag <= p + q; lag++)
        for (int i = 0; i < p; i++) {
            const double *g = gamma + s * (lag - 1 - i);
            gamma[s * lag] += ar[i] * g[0];
            for (int j = 1; j < s; j++) gamma[s * lag + j] += AR(i, j) * g[0] + ar[i] * g[j];
        }
    memset(rho, 0, sizeof(double) * (size_t)(s * (q + 1)));
    for (int lag = 0; lag <= q; lag++)
        for (int i = 0; i + lag <= q; i++) {
            double one = i == 0 ? 1 : ma[i - 1], other = i + lag == 0 ? 1 : ma[i + lag - 1];
            rho[s * lag] += one * other;
            for (int j = 1; j < s; j++)
                rho[s * lag + j] += (i == 0 ? 0 : MA(i - 1, j)) * other + one * (i + lag == 0 ? 0 : MA(i + lag - 1, j));
        }
    for (int lag = 0; lag <= (p > 0 ? p - 1 : 0); lag++)
        for (int j = 0; j < s; j++) {
            double sum = 0;
            for (int l = -q; l <= q; l++) {
                int a = l < 0 ? -l : l, b = lag + l < 0 ? -(lag + l) : lag + l;
                if (j == 0) sum += rho[s * a] * gamma[s * b];
                else sum += rho[s * a + j] * gamma[s * b] + rho[s * a] * gamma[s * b + j];
            }
            full[s * lag + j] = sum;
        }
    for (int lag = 0; lag < q; lag++)
        for (int j = 0; j < s; j++) {
            double sum = lag == 0 ? (j == 0) : MA(lag - 1, j);
            for (int i = 0; i < p && i < lag; i++) {
                const double *g = psi + s * (lag - 1 - i);
                sum += j == 0 ? ar[i] * g[0] : AR(i, j) * g[0] + ar[i] * g[j];
            }
            psi[s * lag + j] = sum;
        }
    *F = full[0];
    for (int j = 1; j < s; j++) dF[j - 1] = full[j];
    for (int i = 0; i < r; i++)
        for (int j = 0; j < s; j++) {
            double sum = 0;
            for (int l = i; l < p; l++) {
                const double *g = full + s * (l - i);
                sum += j == 0 ? ar[l] * g[0] : AR(l, j) * g[0] + ar[l] * g[j];
            }
            for (int l = i; l < q; l++) {
                const double *g = psi + s * (l - i);
                sum += j == 0 ? ma[l] * g[0] : MA(l, j) * g[0] + ma[l] * g[j];
            }
            if (j == 0) c[i] = sum;
            else dc[(j - 1) * r + i] = sum;
        }
#undef AR
#undef MA
#undef LEVEL_AT
}

void arma_stationary(int r, const double *ar, const double *ma, double F, const double *c, double *cov) {
    cov[0] = F - 1;
    for (int j = 0; j + 1 < r; j++) cov[(j + 1) * r] = cov[j + 1] = c[j] - ar[j] * cov[0] - (ar[j] + ma[j]);
    for (int a = 1; a < r; a++)
        for (int b = 1; b <= a; b++) {
            double before = cov[(a - 1) * r + b - 1], row = cov[a * r], column = cov[b * r];
            cov[a * r + b] = cov[b * r + a] = before - ar[a - 1] * ar[b - 1] * cov[0] - ar[a - 1] * column - ar[b - 1] * row -
                                              (ar[a - 1] + ma[a - 1]) * (ar[b - 1] + ma[b - 1]);
        }
}
