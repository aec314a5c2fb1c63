"""ARIMA in a Spark session of one's own, on the demo's data: python examples/spark_ml.py [FOLDER]

Fetch the data with `make demo` first. Fits each customer's weekly spending, searches for the better of two orders in
the order of time, and saves and loads the model.
"""

from __future__ import annotations

import sys

from pyspark.ml.tuning import ParamGridBuilder
from pyspark.sql import SparkSession

from almanac_jobs.spark import ARIMA, ARIMAModel, ForecastEvaluator, RollingOrigin


def main(folder: str = "data/cdnow", saved: str = "out/spark_ml") -> None:
    session = SparkSession.builder.appName("spark_ml").getOrCreate()
    purchases = session.read.parquet(folder).select("customer", "date", "dollars").where("date < '1998-06-29'").cache()
    arima = ARIMA(
        entityCol="customer",
        timeCol="date",
        valueCol="dollars",
        frequency="W",
        horizon=8,
        intervals=[80.0],
        minObservations=10,
        floor=0.0,
    )
    search = RollingOrigin(
        timeCol="date",
        frequency="W",
        horizon=8,
        estimator=arima,
        estimatorParamMaps=ParamGridBuilder().addGrid(arima.order, [[1, 1, 1], [0, 1, 1]]).build(),
        evaluator=ForecastEvaluator(valueCol="dollars", metricName="mae"),
        numFolds=2,
    )
    found = search.fit(purchases)
    print("mean absolute error of each order:", [round(error, 2) for error in found.avgMetrics])
    found.bestModel.write().overwrite().save(saved)
    model = ARIMAModel.load(saved)
    model.parameters.groupBy("status").count().show()
    model.transform(purchases.where("customer = '07592'")).orderBy("date").show()
    session.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
