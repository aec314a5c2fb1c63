# Fits ARIMA(1,1,1) to each row of a CSV file and forecasts 14 steps, for engines.py.
# Writes (phi, theta) of each row; prints the CPU seconds of each of `rounds` equal parts.
arguments <- commandArgs(trailingOnly = TRUE)
series <- as.matrix(read.csv(arguments[1], header = FALSE))
parts <- split(seq_len(nrow(series)), cut(seq_len(nrow(series)), as.integer(arguments[3]), labels = FALSE))
fitted <- matrix(NaN, nrow(series), 2)
for (rows in parts) {
  before <- proc.time()
  for (i in rows) {
    fitted[i, ] <- tryCatch({
      model <- suppressWarnings(stats::arima(series[i, ], order = c(1, 1, 1)))
      ahead <- predict(model, n.ahead = 14)
      interval <- cbind(ahead$pred - 1.959964 * ahead$se, ahead$pred + 1.959964 * ahead$se)
      model$coef
    }, error = function(e) c(NaN, NaN))
  }
  cat(sum((proc.time() - before)[1:2]), "\n")
}
write.table(fitted, arguments[2], sep = ",", row.names = FALSE, col.names = FALSE)
