/* Exact maximum likelihood of many ARMA models at once: what the files of the kernel share.
 *
 * A model is a seasonal ARMA(p,q)(P,Q)[m] of a series w that is already differenced, centred and scaled:
 *
 *     phi(B) Phi(B^m) (w_t - mu) = theta(B) Theta(B^m) e_t,   phi(B) = 1 - phi_1 B - ...,   theta(B) = 1 + theta_1 B + ...
 *
 * The free parameters u are, in this order, p of AR, q of MA, P of seasonal AR, Q of seasonal MA and, if `constant`, mu. Each
 * polynomial is described by its partial autocorrelations (Monahan 1984), so that the region where it is stationary or invertible
 * is the box -1 < u_i < 1. sigma^2 is concentrated out. The objective is
 *
 *     f(u) = (log(S/n) + (1/n) sum log F_t) / 2,   S = sum v_t^2 / F_t,
 *
 * that is -loglik/n - (1 + log 2 pi)/2, with the innovations v_t and their variances F_t (in units of sigma^2).
 */
#ifndef ALMANAC_ARMA_H
#define ALMANAC_ARMA_H

#include <stdint.h>

enum { MAX_FACTOR = 5, MAX_PARAMETERS = 15, LANES = 8 };

typedef struct {
    int32_t p, q, P, Q, m;
    int32_t constant;
} arma_model;

/* What one fit gives. `u` are the free parameters in the order above, mu unchanged. */
typedef struct {
    double objective;             /* f at the optimum; +inf where no start could be evaluated */
    double decrement;             /* predicted gain of log-likelihood of one more step: how far from the optimum, in nats */
    double uncertainty;           /* largest standard error along any direction of the partial autocorrelations */
    double u[MAX_PARAMETERS];
    int32_t evaluations;
    int32_t converged;
} arma_fit;

static inline int arma_ar_order(const arma_model *model) { return model->p + model->P * model->m; }
static inline int arma_ma_order(const arma_model *model) { return model->q + model->Q * model->m; }
static inline int arma_parameters(const arma_model *model) {
    return model->p + model->q + model->P + model->Q + model->constant;
}
static inline int arma_state(const arma_model *model) {
    int p = arma_ar_order(model), q = arma_ma_order(model), r = p > q ? p : q;
    return r > 0 ? r : 1;
}

/* --- polynomials.c ------------------------------------------------------------------------------------------------------- */

/* The point u as expanded polynomials with derivatives: ar[r], ma[r] and, a row of r a parameter, dar and dma. */
void arma_expand(const arma_model *model, const double *u, double *ar, double *ma, double *dar, double *dma);

/* The filter's first variance F and gain numerator c[r] with derivatives dF[k], dc[k][r]; `work` holds arma_work() doubles. */
void arma_initial(int p, int q, int r, int k, const double *ar, const double *ma, const double *dar, const double *dma,
                  double *F, double *dF, double *c, double *dc, double *work);
int64_t arma_work(const arma_model *model);
/* The stationary covariance of the state (r by r), P = T P T' + G G', in units of sigma^2: its first row follows from
 * c = T P Z' + G, the others along the diagonals. */
void arma_stationary(int r, const double *ar, const double *ma, double F, const double *c, double *cov);

/* --- search.c ------------------------------------------------------------------------------------------------------------ */

typedef struct {
    double f, g[MAX_PARAMETERS], h[MAX_PARAMETERS][MAX_PARAMETERS]; /* value, gradient, Gauss-Newton matrix in u */
} arma_value;

/* One search by Levenberg and Marquardt's method: where it is, and where it wants to look next. */
typedef struct {
    int32_t k, n;
    double u[MAX_PARAMETERS], trial[MAX_PARAMETERS], lambda, predicted;
    int32_t evaluations, rejections, converged, started;
    arma_value at;                                  /* its matrix h includes `bend` */
    double bend[MAX_PARAMETERS][MAX_PARAMETERS];    /* what the Gauss-Newton matrix lacks of the true second derivatives */
} arma_search;

void arma_search_start(arma_search *search, int k, int n, const double *u);
/* Takes the value at `trial`; returns 1 if another trial is wanted and 0 if the search has ended at `u`. */
int arma_search_step(arma_search *search, const arma_value *value, const arma_model *model);
/* The s-th starting point for a series; s = 0 is its own moment estimate. */
void arma_start(const arma_model *model, const double *w, int64_t n, int s, double *u);
/* Keeps the end of a search in `fit` if it is the best so far. */
void arma_keep(arma_fit *fit, const arma_search *search, const arma_model *model);
/* Whether a later search is not worth going on with: on its last steps to the optimum that `fit` already holds, or to a lesser one. */
int arma_beaten(const arma_fit *fit, const arma_search *search);

#endif
