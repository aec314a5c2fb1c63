"""Where a run's work is done. An engine maps a function over units of work, and knows nothing of forecasting."""
