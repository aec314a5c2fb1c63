/* Complete series: eight searches side by side in the lanes of a vector, each on its own series, refilled as they end.
 *
 * The filter is the innovations form with Chandrasekhar's recursions (Pearlman 1980; Morf, Sidhu and Kailath 1974), which cost
 * O(r) a step instead of the Kalman filter's O(r^2): with x_t the predicted state, c_t = T P_t Z' + G and P_{t+1} - P_t = -Y_t Y_t' / F_t,
 *
 *     s = Y_1,  k = s / F,  a = T Y,      c' = c - a k,   F' = F - s k,   Y' = a - c k,      v = w - mu - x_1,   x' = T x + c v / F.
 *
 * Derivatives by every parameter are carried along. A lane whose Y has died out is set to its steady state exactly, on its own
 * account and at fixed times, so that a result never depends on which series shared the vector.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lanes.h"

enum { CHECK_EVERY = 8 };
static const double STEADY = 1e-7; /* F and c change by the square of Y from here on */

/* What the filter needs and gives; every pointer is into one lane's-wide work space. */
typedef struct {
    vd *ar, *dar, *ma, *dma; /* r, k*r */
    vd *c, *dc, *Y, *dY, *x, *dx;
    vd F, dF[MAX_PARAMETERS], mu;
    vd S, L, dS[MAX_PARAMETERS], dL[MAX_PARAMETERS], h[MAX_PARAMETERS * (MAX_PARAMETERS + 1) / 2];
} filter;

/* Runs the filter over all lanes. p, r, k and `constant` are compile-time constants in the instances for common models. */
INLINE void run_filter(filter *restrict f, const int p, const int r, const int k, const int constant,
                       const uint32_t ar_mask, int n_min, int n_max, vi lengths, const vd *restrict w) {
    const int free = k - constant;
    vd F = f->F, S = all(0);
    product variances = product_of_nothing();
    vd dF[MAX_PARAMETERS], dS[MAX_PARAMETERS], dL[MAX_PARAMETERS], dv[MAX_PARAMETERS], ds[MAX_PARAMETERS], dk[MAX_PARAMETERS],
        de[MAX_PARAMETERS], dx0[MAX_PARAMETERS], h[MAX_PARAMETERS * (MAX_PARAMETERS + 1) / 2];
    vd *c = f->c, *Y = f->Y, *x = f->x, *dc = f->dc, *dY = f->dY, *dx = f->dx, *ar = f->ar, *dar = f->dar;
    for (int j = 0; j < k; j++) {
        dF[j] = f->dF[j];
        dS[j] = dL[j] = all(0);
    }
    for (int j = 0; j < k * (k + 1) / 2; j++) h[j] = all(0);
    vi moving = (vi)(all(0) == all(0)); /* lanes not yet in their steady state */
    int steady = 0;
    for (int t = 0; t < n_max; t++) {
        vi inside = ~(vi){0};
        if (t >= n_min) inside = (vi)((vi){0} + t < lengths);
        const vd x0 = x[0], y = w[t] - f->mu, v = masked(inside, y - x0);
        const vd iF = steady ? all(1) : all(1) / F, e = v * iF;
        S += v * e;
        for (int j = 0; j < k; j++) {
            dx0[j] = dx[j * r];
            dv[j] = masked(inside, (j == free ? all(-1) : all(0)) - dx0[j]);
        }
        if (!steady) {
            variances.mantissa *= choose(inside, F, all(1));
            if ((t & 3) == 3) product_normalise(&variances);
            for (int j = 0; j < free; j++) {
                vd relative = masked(inside, dF[j]) * iF;
                dL[j] += relative;
                de[j] = (dv[j] - e * dF[j]) * iF;
                dS[j] += e * (2 * dv[j] - e * dF[j]);
                dv[j] = dv[j] - 0.5 * v * relative; /* from here on sqrt(F) times the derivative of v / sqrt(F) */
            }
        } else {
            for (int j = 0; j < free; j++) {
                de[j] = dv[j];
                dS[j] += 2 * v * dv[j];
            }
        }
        if (constant) {
            de[free] = dv[free] * iF;
            dS[free] += 2 * e * dv[free];
        }
        for (int i = 0, a = 0; i < k; i++)
            for (int j = 0; j <= i; j++, a++) h[a] += dv[i] * dv[j] * iF;

        if (steady) {
            for (int i = 0; i < r; i++) {
                const vd next = i + 1 < r ? x[i + 1] : all(0);
                x[i] = (i < p ? ar[i] * x0 + next : next) + c[i] * e;
                for (int j = 0; j < k; j++) {
                    vd value = i + 1 < r ? dx[j * r + i + 1] : all(0);
                    if (i < p) value += ar[i] * dx0[j];
                    if (i < p && (ar_mask >> j & 1)) value += dar[j * r + i] * x0;
                    if (j < free) value += dc[j * r + i] * e;
                    dx[j * r + i] = value + c[i] * de[j];
                }
            }
            continue;
        }
        const vd s = Y[0], gain = s * iF;
        for (int j = 0; j < free; j++) {
            ds[j] = dY[j * r];
            dk[j] = (ds[j] - gain * dF[j]) * iF;
            dF[j] = dF[j] - 2 * gain * ds[j] + gain * gain * dF[j];
        }
        F = F - s * gain;
        for (int i = 0; i < r; i++) {
            const vd old = c[i], shifted = i + 1 < r ? Y[i + 1] : all(0), next = i + 1 < r ? x[i + 1] : all(0);
            const vd a = i < p ? ar[i] * s + shifted : shifted;
            c[i] = old - a * gain;
            Y[i] = a - old * gain;
            x[i] = (i < p ? ar[i] * x0 + next : next) + old * e;
            for (int j = 0; j < k; j++) {
                vd value = i + 1 < r ? dx[j * r + i + 1] : all(0);
                if (i < p) value += ar[i] * dx0[j];
                if (j < free) {
                    vd da = i + 1 < r ? dY[j * r + i + 1] : all(0);
                    if (i < p) da += ar[i] * ds[j];
                    if (i < p && (ar_mask >> j & 1)) {
                        da += dar[j * r + i] * s;
                        value += dar[j * r + i] * x0;
                    }
                    const vd dold = dc[j * r + i];
                    dc[j * r + i] = dold - da * gain - a * dk[j];
                    dY[j * r + i] = da - dold * gain - old * dk[j];
                    value += dold * e;
                }
                dx[j * r + i] = value + old * de[j];
            }
        }
        if ((t & (CHECK_EVERY - 1)) == CHECK_EVERY - 1) {
            vi small = moving & (vi)(absolute(F - all(1)) < all(STEADY));
            for (int i = 0; i < r; i++) small &= (vi)(absolute(Y[i]) < all(STEADY));
            for (int j = 0; j < free; j++)
                for (int i = 0; i < r; i++) small &= (vi)(absolute(dY[j * r + i]) < all(STEADY));
            if (any(small)) {
                F = choose(small, all(1), F);
                for (int i = 0; i < r; i++) {
                    c[i] = choose(small, ar[i] + f->ma[i], c[i]);
                    Y[i] = choose(small, all(0), Y[i]);
                }
                for (int j = 0; j < free; j++) {
                    dF[j] = choose(small, all(0), dF[j]);
                    for (int i = 0; i < r; i++) {
                        dc[j * r + i] = choose(small, dar[j * r + i] + f->dma[j * r + i], dc[j * r + i]);
                        dY[j * r + i] = choose(small, all(0), dY[j * r + i]);
                    }
                }
                moving &= ~small;
                steady = !any(moving);
            }
        }
    }
    f->S = S;
    f->F = F;
    for (int l = 0; l < LANES; l++) f->L[l] = product_log(&variances, l);
    for (int j = 0; j < k; j++) {
        f->dS[j] = dS[j];
        f->dL[j] = dL[j];
    }
    for (int j = 0; j < k * (k + 1) / 2; j++) f->h[j] = h[j];
}

typedef struct {
    int64_t series;  /* -1: nothing left to do */
    int32_t start;
    arma_search search;
} lane;

typedef struct {
    const arma_model *model;
    const double *w;
    const int64_t *offsets;
    int64_t n_series, next;
    int32_t starts;
    arma_fit *fits;
    lane lanes[LANES];
    vi lengths;
    vd *buffer; /* time by lane */
} work_queue;

/* Gives a lane its next start or series; a lane that has none left keeps a length of zero. */
static void refill(work_queue *queue, int l) {
    lane *one = &queue->lanes[l];
    const arma_model *model = queue->model;
    if (one->series < 0 || one->start + 1 >= queue->starts) {
        if (queue->next >= queue->n_series) {
            one->series = -1;
            queue->lengths[l] = 0;
            return;
        }
        one->series = queue->next++;
        one->start = 0;
        int64_t begin = queue->offsets[one->series], n = queue->offsets[one->series + 1] - begin;
        queue->lengths[l] = n;
        for (int64_t t = 0; t < n; t++) queue->buffer[t][l] = queue->w[begin + t];
        memset(&queue->fits[one->series], 0, sizeof(arma_fit));
        queue->fits[one->series].objective = INFINITY;
    } else {
        one->start++;
    }
    double u[MAX_PARAMETERS];
    arma_start(model, queue->w + queue->offsets[one->series], queue->lengths[l], one->start, u);
    arma_search_start(&one->search, arma_parameters(model), (int)queue->lengths[l], u);
}

static void read_value(const filter *f, int l, int k, int64_t n, arma_value *value) {
    double S = f->S[l], count = (double)n;
    /* F falls to 1 and never below: where it did, precision was lost, and the point is refused. */
    value->f = f->F[l] > 1 - 1e-6 ? 0.5 * (log(S / count) + f->L[l] / count) : NAN;
    for (int i = 0, a = 0; i < k; i++) {
        value->g[i] = 0.5 * (f->dS[i][l] / S + f->dL[i][l] / count);
        for (int j = 0; j <= i; j++, a++) value->h[i][j] = value->h[j][i] = f->h[a][l] / S;
    }
}

/* Fits `n_series` complete series, longest first; w[offsets[i] .. offsets[i+1]) is series i. Returns 0 when out of memory. */
int CONCAT(arma_complete, LEVEL)(const arma_model *model, int64_t n_series, const double *w, const int64_t *offsets,
                                     int32_t starts, arma_fit *fits) {
    const int p = arma_ar_order(model), q = arma_ma_order(model), r = arma_state(model), k = arma_parameters(model);
    const int constant = model->constant;
    if (n_series == 0) return 1;
    uint32_t ar_mask = 0;
    for (int j = 0; j < model->p; j++) ar_mask |= 1u << j;
    for (int j = 0; j < model->P; j++) ar_mask |= 1u << (model->p + model->q + j);
    int64_t longest = offsets[1] - offsets[0];
    size_t wide = (size_t)(longest + 5 * r + 5 * k * r) + 1, plain = (size_t)(4 * r + 4 * k * r) + (size_t)arma_work(model) + 64;
    vd *space = NULL;
    double *scalar = malloc(plain * sizeof(double));
    if (scalar != NULL) space = aligned_alloc(sizeof(vd), wide * sizeof(vd));
    if (space == NULL) {
        free(scalar);
        return 0;
    }
    filter f;
    memset(&f, 0, sizeof f);
    work_queue queue = {.model = model, .w = w, .offsets = offsets, .n_series = n_series, .starts = starts, .fits = fits};
    vd *at = space;
    memset(space, 0, wide * sizeof(vd));
    queue.buffer = at, at += longest;
    f.ar = at, at += r, f.ma = at, at += r, f.c = at, at += r, f.Y = at, at += r, f.x = at, at += r;
    f.dar = at, at += k * r, f.dma = at, at += k * r, f.dc = at, at += k * r, f.dY = at, at += k * r, f.dx = at, at += k * r;
    double *ar = scalar, *ma = ar + r, *c = ma + r, *dar = c + r, *dma = dar + k * r, *dc = dma + k * r, *dF = dc + k * r,
           *work = dF + 32;
    for (int l = 0; l < LANES; l++) {
        queue.lanes[l].series = -1;
        refill(&queue, l);
    }
    for (;;) {
        int64_t n_min = INT64_MAX, n_max = 0;
        for (int l = 0; l < LANES; l++) {
            if (queue.lanes[l].series < 0) continue;
            int64_t n = queue.lengths[l];
            n_min = n < n_min ? n : n_min;
            n_max = n > n_max ? n : n_max;
        }
        if (n_max == 0) break;
        for (int l = 0; l < LANES; l++) {
            double F = 1;
            const double *u = queue.lanes[l].search.trial;
            if (queue.lanes[l].series < 0) { /* an idle lane is in its steady state from the start */
                f.F[l] = 1;
                for (int j = 0; j < k; j++) f.dF[j][l] = 0;
                for (int i = 0; i < r; i++) f.c[i][l] = f.Y[i][l] = 0;
                for (int i = 0; i < k * r; i++) f.dc[i][l] = f.dY[i][l] = 0;
                continue;
            }
            arma_expand(model, u, ar, ma, dar, dma);
            arma_initial(p, q, r, k, ar, ma, dar, dma, &F, dF, c, dc, work);
            f.F[l] = F;
            f.mu[l] = constant ? u[k - 1] : 0;
            for (int j = 0; j < k; j++) f.dF[j][l] = dF[j];
            for (int i = 0; i < r; i++) f.ar[i][l] = ar[i], f.ma[i][l] = ma[i], f.c[i][l] = f.Y[i][l] = c[i];
            for (int i = 0; i < k * r; i++) f.dar[i][l] = dar[i], f.dma[i][l] = dma[i], f.dc[i][l] = f.dY[i][l] = dc[i];
        }
        for (int i = 0; i < r; i++) f.x[i] = all(0);
        for (int i = 0; i < k * r; i++) f.dx[i] = all(0);
#define INSTANCE(P_, Q_, C_) \
    if (p == P_ && q == Q_ && constant == C_ && model->P == 0 && model->Q == 0) { \
        run_filter(&f, P_, P_ > Q_ ? P_ : (Q_ > 0 ? Q_ : 1), P_ + Q_ + C_, C_, (1u << P_) - 1, (int)n_min, (int)n_max, \
                   queue.lengths, queue.buffer); \
    } else
        INSTANCE(1, 1, 0)
        INSTANCE(0, 1, 0)
        INSTANCE(1, 0, 0)
        INSTANCE(1, 0, 1)
        INSTANCE(1, 1, 1)
        INSTANCE(2, 2, 0)
        if (p == 0 && k == 2 && constant == 0) /* pure moving averages, the airline model above all */
            run_filter(&f, 0, r, 2, 0, 0, (int)n_min, (int)n_max, queue.lengths, queue.buffer);
        else
            run_filter(&f, p, r, k, constant, ar_mask, (int)n_min, (int)n_max, queue.lengths, queue.buffer);
#undef INSTANCE
        for (int l = 0; l < LANES; l++) {
            lane *one = &queue.lanes[l];
            if (one->series < 0) continue;
            arma_value value;
            read_value(&f, l, k, queue.lengths[l], &value);
            if (arma_search_step(&one->search, &value, model) && !arma_beaten(&fits[one->series], &one->search)) continue;
            arma_keep(&fits[one->series], &one->search, model);
            refill(&queue, l);
        }
    }
    free(space);
    free(scalar);
    return 1;
}
