/* Aggregates of rows by key, the same whatever the order of the rows.
 *
 * An entry is a key with a value and an extra number, in arrays side by side: `value` is absent (null) for COUNT, `extra` for all
 * but MEAN and COUNT (rows) and LAST (time). Sums are exact: a key has as many entries as its sum needs, the terms of a
 * nonoverlapping expansion in increasing magnitude (Shewchuk 1997, "Adaptive Precision Floating-Point Arithmetic", section 2.4;
 * Python's math.fsum works alike), which are rounded once, at the very end. Most sums need one or two.
 *
 * An infinite value makes its sum infinite, positive where both signs occur. A partial sum beyond the range of a double does so
 * too, whatever follows: only there does the order of rows count. No value is NaN.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SUM, MEAN, COUNT, MIN, MAX, LAST };

typedef struct {
    int64_t *key;
    double *value;
    int64_t *extra;
} entries;

static int is_sorted(int64_t n, const int64_t *key) {
    for (int64_t i = 1; i < n; i++)
        if (key[i - 1] > key[i]) return 0;
    return 1;
}

/* Sorts non-negative keys with the rows they came from, a digit of up to 8 bits at a time, skipping bits that are the same in all. */
static void sort_keys(int64_t n, uint64_t *key, uint32_t *row, uint64_t *key2, uint32_t *row2) {
    uint64_t differ = 0, *home = key;
    for (int64_t i = 1; i < n; i++) differ |= key[i] ^ key[0];
    for (int shift = 0; shift < 64 && differ >> shift; shift += 8) {
        while (!(differ >> shift & 1)) shift++;
        int64_t at[256] = {0}, total = 0;
        for (int64_t i = 0; i < n; i++) at[key[i] >> shift & 255]++;
        for (int digit = 0; digit < 256; digit++) {
            int64_t count = at[digit];
            at[digit] = total;
            total += count;
        }
        for (int64_t i = 0; i < n; i++) {
            int64_t to = at[key[i] >> shift & 255]++;
            key2[to] = key[i];
            row2[to] = row[i];
        }
        uint64_t *keys = key;
        uint32_t *rows = row;
        key = key2, row = row2, key2 = keys, row2 = rows;
    }
    if (key != home) {
        memcpy(key2, key, n * sizeof *key);
        memcpy(row2, row, n * sizeof *row);
    }
}

/* Sorts entries by key; returns 0 if there is no memory for it. */
static int sort_entries(int64_t n, entries e) {
    if (is_sorted(n, e.key)) return 1;
    uint64_t *spare = malloc(n * sizeof *spare);
    uint32_t *row = malloc(2 * n * sizeof *row);
    if (spare && row) {
        for (int64_t i = 0; i < n; i++) row[i] = (uint32_t)i;
        sort_keys(n, (uint64_t *)e.key, row, spare, row + n);
        if (e.value) {
            double *sorted = (double *)spare;
            for (int64_t i = 0; i < n; i++) sorted[i] = e.value[row[i]];
            memcpy(e.value, sorted, n * sizeof *sorted);
        }
        if (e.extra) {
            int64_t *sorted = (int64_t *)spare;
            for (int64_t i = 0; i < n; i++) sorted[i] = e.extra[row[i]];
            memcpy(e.extra, sorted, n * sizeof *sorted);
        }
    }
    int done = spare && row;
    free(spare);
    free(row);
    return done;
}

/* Adds x to the expansion of `terms` terms, exactly; returns how many terms it has then. */
static int grow(double *term, int terms, double x) {
    int kept = 0;
    for (int i = 0; i < terms; i++) {
        double y = term[i];
        if (fabs(x) < fabs(y)) {
            double larger = y;
            y = x;
            x = larger;
        }
        double high = x + y, low = y - (high - x);
        if (low != 0) term[kept++] = low;
        x = high;
    }
    if (x != 0) term[kept++] = x;
    return kept;
}

enum { MOST_TERMS = 64 }; /* a double spans 2098 bits, a term 53 of them */

/* Writes the expansion of the sum of n values to `out`, which may be where they are, and returns its length: at least 1, at most n. */
static int64_t expand(int64_t n, const double *value, double *out) {
    if (n == 1) { /* the most frequent case */
        out[0] = value[0] + 0.0;
        return 1;
    }
    double term[MOST_TERMS], beyond = 0;
    int terms = 0;
    for (int64_t i = 0; i < n; i++) {
        if (isfinite(value[i])) terms = grow(term, terms, value[i]);
        else if (beyond == 0 || value[i] > beyond) beyond = value[i];
        if (terms && !isfinite(term[terms - 1])) {
            beyond = value[i] > 0 ? INFINITY : -INFINITY;
            terms = 0;
        }
    }
    if (beyond != 0) {
        out[0] = beyond;
        return 1;
    }
    if (!terms) term[terms++] = 0;
    memcpy(out, term, terms * sizeof *term);
    return terms;
}

/* Of the entries of one key the one that stands for all: the least or largest value, or of the latest ones the largest. */
static int64_t choose(int how, int64_t start, int64_t end, entries e) {
    int64_t best = start;
    for (int64_t i = start + 1; i < end; i++) {
        int better = how == MIN ? e.value[i] < e.value[best] : e.value[i] > e.value[best];
        if (how == LAST && e.extra[i] != e.extra[best]) better = e.extra[i] > e.extra[best];
        if (better) best = i;
    }
    return best;
}

/* Makes entries of equal keys, which are neighbours, one (an expansion, for sums), in place; returns how many entries are left. */
static int64_t combine(int how, int64_t n, entries e) {
    int64_t kept = 0;
    for (int64_t start = 0, end; start < n; start = end) {
        int64_t key = e.key[start], rows = 0, terms = 1;
        for (end = start; end < n && e.key[end] == key; end++)
            if (how == MEAN || how == COUNT) rows += e.extra[end];
        if (how == SUM || how == MEAN) {
            terms = expand(end - start, e.value + start, e.value + kept);
        } else if (how != COUNT) {
            int64_t best = choose(how, start, end, e);
            e.value[kept] = e.value[best] + 0.0; /* -0 becomes 0: there is one zero only */
            if (how == LAST) e.extra[kept] = e.extra[best];
        }
        for (int64_t i = 0; i < terms; i++) {
            e.key[kept + i] = key;
            if (how == MEAN || how == COUNT) e.extra[kept + i] = i ? 0 : rows;
        }
        kept += terms;
    }
    return kept;
}

/* Sorts n entries by key and combines equal keys, in place. Keys are not negative, n is below 2^32. Returns how many entries are
 * left, or -1 if there is no memory. */
int64_t sums_reduce(int32_t how, int64_t n, int64_t *key, double *value, int64_t *extra) {
    entries e = {key, value, extra};
    return sort_entries(n, e) ? combine(how, n, e) : -1;
}

/* The same for n reduced entries that are followed by m reduced entries. */
int64_t sums_merge(int32_t how, int64_t n, int64_t m, int64_t *key, double *value, int64_t *extra) {
    int64_t *keys = malloc((m + 1) * sizeof *keys), *extras = extra ? malloc((m + 1) * sizeof *extras) : NULL;
    double *values = value ? malloc((m + 1) * sizeof *values) : NULL;
    int64_t left = -1;
    if (keys && (values || !value) && (extras || !extra)) {
        memcpy(keys, key + n, m * sizeof *keys);
        if (value) memcpy(values, value + n, m * sizeof *values);
        if (extra) memcpy(extras, extra + n, m * sizeof *extras);
        for (int64_t to = n + m - 1, from = n - 1, next = m - 1; next >= 0; to--) { /* from the back, where there is room */
            int first = from >= 0 && key[from] > keys[next];
            int64_t at = first ? from-- : next--;
            key[to] = first ? key[at] : keys[at];
            if (value) value[to] = first ? value[at] : values[at];
            if (extra) extra[to] = first ? extra[at] : extras[at];
        }
        left = combine(how, n + m, (entries){key, value, extra});
    }
    free(keys);
    free(values);
    free(extras);
    return left;
}

/* The double nearest to the sum of an expansion, ties to even (as math.fsum has it). */
static double nearest(int64_t terms, const double *term) {
    double high = term[--terms], low = 0;
    while (terms > 0 && low == 0) {
        double x = high, y = term[--terms];
        high = x + y;
        low = y - (high - x);
    }
    /* Halfway between two doubles, what is left of the terms decides. */
    if (terms > 0 && ((low < 0 && term[terms - 1] < 0) || (low > 0 && term[terms - 1] > 0))) {
        double twice = 2 * low, x = high + twice;
        if (twice == x - high) high = x;
    }
    return high;
}

/* The double nearest to an expansion divided by a double, but for near-ties beyond twice a double's precision. */
static double quotient(int64_t terms, const double *term, double divisor) {
    double high = nearest(terms, term);
    if (divisor == 1 || !isfinite(high)) return high;
    double rest[MOST_TERMS + 1], low = 0, first = high / divisor;
    memcpy(rest, term, terms * sizeof *term);
    terms = grow(rest, (int)terms, -high);
    for (int64_t i = 0; i < terms; i++) low += rest[i];
    return first + (fma(-first, divisor, high) + low) / divisor;
}

/* Makes the expansions of n reduced entries one value a key, in place: the sum for SUM, or the mean for MEAN, divided by `unit`.
 * Returns how many keys there are. */
int64_t sums_round(int32_t how, double unit, int64_t n, int64_t *key, double *value, int64_t *extra) {
    int64_t kept = 0;
    for (int64_t start = 0, end; start < n; start = end, kept++) {
        for (end = start + 1; end < n && key[end] == key[start]; end++) {}
        key[kept] = key[start];
        value[kept] = quotient(end - start, value + start, how == MEAN ? unit * (double)extra[start] : unit);
        if (how == MEAN) extra[kept] = extra[start];
    }
    return kept;
}
