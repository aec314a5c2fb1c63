# Writes families_r.json: what R's forecast package finds for classic series with exponential smoothing, the theta method,
# auto.arima and the naive methods. Run in this folder: Rscript families_r.R
# (R 4.2.2 with forecast 8.20 wrote what is here; R is no dependency of the tests)
suppressMessages(library(forecast))
csv <- read.csv("classic_series.csv")
seasons <- c(WWWusage = 1, Nile = 1, lynx = 1, LakeHuron = 1, austres = 4, woolyrnq = 4, wineind = 12, USAccDeaths = 12,
             AirPassengers = 12)
values <- function(name) ts(csv$value[csv$series == name], frequency = seasons[[name]])
h <- 14

numbers <- function(x) paste0("[", paste(trimws(formatC(as.numeric(x), digits = 10, format = "g")), collapse = ", "), "]")
number <- function(x) trimws(formatC(as.numeric(x), digits = 10, format = "g"))
text <- function(x) paste0('"', x, '"')
record <- function(...) {
  fields <- list(...)
  paste0("  {", paste0('"', names(fields), '": ', fields, collapse = ", "), "}")
}
ahead <- function(object, quantile = qnorm(0.975)) # mean and standard error, from the upper bound at 95 %
  list(mean = numbers(object$mean), se = numbers((object$upper[, 1] - object$mean) / quantile))

ets_form <- function(name, error, trend, season) {
  y <- values(name)
  fit <- tryCatch(suppressWarnings(ets(y, paste0(error, substr(trend, 1, 1), season), damped = trend == "Ad")),
                  error = function(e) NULL)
  if (is.null(fit)) return(NULL)
  future <- ahead(forecast(fit, h, level = 95))
  smoothing <- fit$par[names(fit$par) %in% c("alpha", "beta", "gamma", "phi")]
  # R leaves n/2 (1 + log 2 pi - log n) out of its log-likelihood. Its last seasonal state is the next period's.
  last <- tail(fit$states, 1)
  first <- 1 + (trend != "N")
  state <- c(last[seq_len(first)], if (season != "N") rev(last[-seq_len(first)]))
  record(series = text(name), seasonLength = seasons[[name]],
         form = text(paste0("(", error, ",", trend, ",", season, ")", if (season != "N") paste0("[", seasons[[name]], "]"))),
         loglik = number(fit$loglik - length(y) / 2 * (1 + log(2 * pi) - log(length(y)))),
         coefficients = numbers(smoothing), sigma2 = number(fit$sigma2), state = numbers(state), mean = future$mean,
         se = future$se)
}
ets_auto <- function(name) {
  fit <- ets(values(name))
  n <- length(values(name))
  record(series = text(name), seasonLength = seasons[[name]], method = text(fit$method),
         aicc = number(fit$aicc + n * (1 + log(2 * pi) - log(n))))
}
theta <- function(name) {
  fit <- thetaf(values(name), h, level = 95)
  future <- ahead(fit)
  record(series = text(name), seasonLength = seasons[[name]], alpha = number(fit$model$alpha),
         drift = number(fit$model$drift), sigma = number(sqrt(fit$model$sigma)), mean = future$mean, se = future$se)
}
simple <- function(name) {
  y <- values(name)
  methods <- list(naive = naive(y, h, level = 95), seasonalnaive = snaive(y, h, level = 95),
                  drift = rwf(y, h, drift = TRUE, level = 95), mean = meanf(y, h, level = 95))
  sapply(names(methods), function(method) {
    # meanf's interval is Student's with n - 1 degrees of freedom, rwf's with drift normal
    future <- ahead(methods[[method]], if (method == "mean") qt(0.975, length(y) - 1) else qnorm(0.975))
    record(series = text(name), seasonLength = seasons[[name]], family = text(method), mean = future$mean, se = future$se)
  })
}
auto_arima <- function(name, y = values(name)) {
  fit <- auto.arima(y)
  o <- arimaorder(fit)
  m <- frequency(y)
  record(series = text(name), seasonLength = m, order = numbers(o[1:3]),
         seasonalOrder = numbers(if (length(o) > 3) o[4:6] else c(0, 0, 0)),
         constant = if (any(c("intercept", "drift") %in% names(coef(fit)))) "true" else "false", aicc = number(fit$aicc))
}
differences <- function(name, y = values(name)) {
  D <- if (frequency(y) > 1) nsdiffs(y) else 0
  record(series = text(name), seasonLength = frequency(y), D = D, d = ndiffs(if (D > 0) diff(y, frequency(y)) else y))
}
forms <- function(name) unlist(lapply(c("A", "M"), function(e) lapply(c("N", "A", "Ad"), function(t)
  lapply(if (seasons[[name]] == 1) "N" else if (e == "A") c("N", "A") else c("N", "A", "M"), function(s) ets_form(name, e, t, s)))))
section <- function(name, records) paste0(' "', name, '": [\n', paste(unlist(records), collapse = ",\n"), "\n ]")

log_air <- log(values("AirPassengers"))
writeLines(c("{", paste(c(
  section("ets", lapply(names(seasons), forms)),
  section("ets_auto", lapply(names(seasons), ets_auto)),
  section("theta", lapply(names(seasons), theta)),
  section("simple", lapply(names(seasons), simple)),
  section("auto_arima", c(lapply(names(seasons), auto_arima), auto_arima("logAirPassengers", log_air))),
  section("differences", c(lapply(names(seasons), differences), differences("logAirPassengers", log_air)))
), collapse = ",\n"), "}"), "families_r.json")
