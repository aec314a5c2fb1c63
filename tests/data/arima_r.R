# Writes arima_r.json: R's exact maximum likelihood estimates and predictions for classic series.
# Run in this folder: Rscript arima_r.R   (R 4.2.2 wrote what is here; R is no dependency of the tests)
options(digits = 15)
series <- read.csv("classic_series.csv")
cases <- list(
  list("WWWusage", c(1, 1, 1)), list("WWWusage", c(3, 1, 0)), list("WWWusage", c(2, 1, 2)), list("WWWusage", c(0, 2, 2)),
  list("Nile", c(1, 1, 1)), list("Nile", c(0, 1, 1)), list("Nile", c(1, 0, 1)), list("lynx", c(1, 1, 1)), list("lynx", c(2, 0, 2)),
  list("wineind", c(1, 1, 1)), list("wineind", c(1, 1, 1), c(0, 1, 1), 12), list("woolyrnq", c(1, 1, 1)),
  list("woolyrnq", c(1, 0, 0), c(0, 1, 1), 4), list("austres", c(1, 1, 1)), list("austres", c(0, 2, 1), c(1, 0, 0), 4),
  list("AirPassengers", c(1, 1, 1)), list("logAirPassengers", c(0, 1, 1), c(0, 1, 1), 12), list("logAirPassengers", c(2, 1, 1), c(1, 1, 1), 12),
  list("USAccDeaths", c(0, 1, 1), c(0, 1, 1), 12), list("lh", c(1, 0, 0)), list("lh", c(3, 0, 0)), list("lh", c(1, 0, 1)),
  list("LakeHuron", c(2, 0, 0)), list("presidents", c(3, 0, 0)), list("presidents", c(1, 1, 1)), list("presidents", c(1, 0, 0), c(1, 0, 1), 4)
)
values <- function(name) {
  if (name == "logAirPassengers") return(log(series$value[series$series == "AirPassengers"]))
  v <- series$value[series$series == name]
  seen <- which(!is.na(v))
  v[seen[1]:seen[length(seen)]]
}
array <- function(x) paste0("[", paste(trimws(formatC(as.numeric(x), digits = 12, format = "g")), collapse = ", "), "]")
differenced <- function(x, d, seasonal, m) { # R's prior on the undifferenced level costs digits: this is the likelihood without it
  if (d > 0) x <- diff(x, differences = d)
  if (seasonal > 0) x <- diff(x, lag = m)
  x
}
one <- function(case) {
  seasonal <- if (length(case) > 2) case[[3]] else c(0, 0, 0)
  m <- if (length(case) > 2) case[[4]] else 1
  fit <- NULL
  for (start in c("CSS-ML", "ML")) { # the better of R's own two ways
    try(other <- arima(values(case[[1]]), order = case[[2]], seasonal = list(order = seasonal, period = m), method = start,
                       optim.control = list(maxit = 5000, reltol = 1e-14)), silent = TRUE)
    if (is.null(fit) || other$loglik > fit$loglik) fit <- other
  }
  ahead <- predict(fit, n.ahead = 12)
  d <- case[[2]][2]
  loglik <- fit$loglik
  if (d + seasonal[2] > 0 && !anyNA(values(case[[1]])))
    loglik <- arima(differenced(values(case[[1]]), d, seasonal[2], m), order = case[[2]] * c(1, 0, 1), include.mean = FALSE,
                    seasonal = list(order = seasonal * c(1, 0, 1), period = m), fixed = coef(fit), transform.pars = FALSE)$loglik
  sprintf(' {"series": "%s", "order": %s, "seasonalOrder": %s, "seasonLength": %d,\n  "coefficients": %s, "sigma2": %s, "loglik": %s,\n  "mean": %s,\n  "se": %s}',
          case[[1]], array(case[[2]]), array(seasonal), m, array(coef(fit)), formatC(fit$sigma2, digits = 12, format = "g"),
          formatC(loglik, digits = 12, format = "g"), array(ahead$pred), array(ahead$se))
}
writeLines(c("[", paste(sapply(cases, one), collapse = ",\n"), "]"), "arima_r.json")
