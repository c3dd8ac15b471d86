"""The face for spark.ml: estimators on DataFrames, whatever their columns and partitions."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from pyspark.errors import PySparkException
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import BinaryClassificationEvaluator
from pyspark.ml.feature import StandardScaler
from pyspark.ml.linalg import Vectors
from pyspark.ml.tuning import CrossValidator, ParamGridBuilder
from pyspark.sql import functions as F

from hemiola.dataset import Batch, make_dataset
from hemiola.errors import DataError, OptionError, UnsupportedError
from hemiola.objectives import logistic, softmax
from hemiola.reference import pooled_optimum
from hemiola.result import Result
from hemiola.spark import (
    DistributedClassificationModel,
    DistributedClassifier,
    DistributedRegressor,
)


def numbers(n=240, classes=2, seed=1):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3)) * (rng.random((n, 3)) < 0.7)
    y = (X @ rng.normal(size=(3, classes)) + rng.normal(size=(n, classes))).argmax(axis=1)
    return X, y


def frame_of(spark, X, y, kind="dense", weight=None, partitions=2):
    make = {
        "dense": lambda x: Vectors.dense(x),
        "sparse": lambda x: Vectors.sparse(len(x), [(i, v) for i, v in enumerate(x) if v]),
        "mixed": lambda x: Vectors.dense(x) if x[0] else make["sparse"](x),
        "array": lambda x: x,
    }
    weight = np.ones(len(y)) if weight is None else weight
    rows = [
        (make[kind](x), float(label), float(w), *x)
        for x, label, w in zip(X.tolist(), y, weight, strict=True)
    ]
    return spark.createDataFrame(rows, ["features", "label", "weight", "a", "b", "c"]).repartition(
        partitions
    )


QUICK = {"algorithm": "ssgd", "rounds": 400, "options": {"batch_size": "all"}, "l2": 0.01,
         "numWorkers": 2}  # fmt: skip


def test_it_finds_the_optimum_whatever_the_columns(spark):
    X, y = numbers()
    _, least = pooled_optimum(logistic(0.01), make_dataset(X, y))
    for kind in ("dense", "sparse", "mixed", "array", "columns"):
        frame = frame_of(spark, X, y, "array" if kind == "columns" else kind)
        which = {"featuresCols": ["a", "b", "c"]} if kind == "columns" else {}
        model = DistributedClassifier(**QUICK, **which).fit(frame)
        found = model.result.weights
        data = make_dataset(X, y)
        assert logistic(0.01).value(found, Batch(data)) - least < 1e-6, kind
        assert model.transform(frame).filter("prediction = label").count() == int(
            ((X @ found[:-1] + found[-1] > 0) == y).sum()
        )


def test_a_partition_is_a_worker_and_its_figures_are_those_of_all_rows(spark):
    X, y = numbers()
    model = DistributedClassifier(algorithm="bmuf", rounds=7, numWorkers=3).fit(
        frame_of(spark, X, y, partitions=2)
    )
    assert model.result.settings["workers"] == 3
    last = model.result.history.last
    assert (last.rounds, last.messages) == (7, 42)
    data = make_dataset(X, y)
    assert last.loss == pytest.approx(
        logistic(1 / 240).value(model.result.weights, Batch(data)), rel=1e-12
    )


def test_weights_count_as_rows_would(spark):
    X, y = numbers(80)
    weight = np.arange(80) % 3
    rows = np.repeat(np.arange(80), weight)
    _, least = pooled_optimum(logistic(0.01), make_dataset(X[rows], y[rows]))
    model = DistributedClassifier(**QUICK, weightCol="weight").fit(
        frame_of(spark, X, y, weight=weight)
    )
    data = make_dataset(X[rows], y[rows])
    assert logistic(0.01).value(model.result.weights, Batch(data)) - least < 1e-4


def test_of_three_classes_probabilities_sum_to_one_and_labels_are_the_frames_own(spark):
    X, y = numbers(classes=3)
    frame = frame_of(spark, X, 10.0 * y + 5)
    model = DistributedClassifier(rounds=20, numWorkers=2).fit(frame)
    assert model.numClasses == 3 and model.coefficientMatrix.shape == (3, 3)
    rows = model.transform(frame).select("features", "probability", "prediction").collect()
    assert {row.prediction for row in rows} <= {5.0, 15.0, 25.0}
    found = np.array([row.probability.toArray() for row in rows])
    X = np.array([row.features.toArray() for row in rows])
    wanted = softmax(0.0).scores(model.result.weights, X)
    wanted = np.exp(wanted) / np.exp(wanted).sum(axis=1, keepdims=True)
    assert found == pytest.approx(wanted)
    assert [row.prediction for row in rows] == (10.0 * wanted.argmax(axis=1) + 5).tolist()


def test_regression_finds_the_least_squares(spark):
    X, _ = numbers(100)
    y = X @ [1.0, -2.0, 0.5] + 3
    frame = frame_of(spark, X, y)
    model = DistributedRegressor(**{**QUICK, "l2": 0.0, "rounds": 600}).fit(frame)
    assert model.coefficients == pytest.approx([1.0, -2.0, 0.5], abs=1e-3)
    assert model.intercept == pytest.approx(3.0, abs=1e-3)
    off = F.max(F.abs(F.col("prediction") - F.col("label")))
    assert model.transform(frame).select(off).first()[0] < 1e-2


# Among the tools of spark.ml


def test_in_a_pipeline_and_a_cross_validator(spark, tmp_path):
    X, y = numbers()
    frame = frame_of(spark, X * [1.0, 100.0, 0.01], y)
    estimator = DistributedClassifier(featuresCol="scaled", rounds=20, numWorkers=2)
    scaler = StandardScaler(inputCol="features", outputCol="scaled", withMean=True)
    pipeline = Pipeline(stages=[scaler, estimator])
    grid = ParamGridBuilder().addGrid(estimator.l2, [0.001, 10.0]).build()
    validator = CrossValidator(
        estimator=pipeline, estimatorParamMaps=grid, numFolds=2, seed=1,
        evaluator=BinaryClassificationEvaluator(),
    )  # fmt: skip
    found = validator.fit(frame)
    assert found.avgMetrics[0] > 0.7
    assert found.bestModel.stages[1].result.settings["objective"]["l2"] in (0.001, 10.0)
    found.bestModel.write().overwrite().save(str(tmp_path / "model"))
    again = PipelineModel.load(str(tmp_path / "model"))
    assert (
        again.transform(frame).select("prediction").collect()
        == found.transform(frame).select("prediction").collect()
    )
    pipeline.save(str(tmp_path / "pipeline"))
    assert Pipeline.load(str(tmp_path / "pipeline")).getStages()[1].getRounds() == 20


def test_a_model_is_saved_without_pickle_for_spark_and_for_the_library(spark, tmp_path):
    X, y = numbers()
    frame = frame_of(spark, X, y)
    model = DistributedClassifier(rounds=5, numWorkers=2, predictionCol="said").fit(frame)
    model.save(str(tmp_path / "there"))
    again = DistributedClassificationModel.load(str(tmp_path / "there"))
    assert again.uid == model.uid and again.getPredictionCol() == "said"
    assert again.result.model.sha256 == model.result.model.sha256
    assert again.result.history.to_dict() == model.result.history.to_dict()
    model.result.save(tmp_path / "model.npz")
    plain = Result.load(tmp_path / "model.npz").model
    rows = model.transform(frame).select("features", "said").collect()
    features = np.array([row.features.toArray() for row in rows])
    assert plain.predict(features).tolist() == [row.said for row in rows]


# What does not fit


def test_data_that_do_not_fit_are_refused_in_plain_words(spark):
    X, y = numbers(40)
    good = frame_of(spark, X, y)
    uneven = F.when(F.col("a") > 0, F.array("a")).otherwise(F.array("a", "b"))
    hole = F.when(F.col("a") > 0, F.col("a"))
    cases = {
        "no column 'feature'; did you mean 'features'": (good, {"featuresCol": "feature"}),
        "column 'name' is of type string": (
            good.withColumn("name", F.lit("x")), {"labelCol": "name"},
        ),
        "column 'when' is of type date; features are a column of vectors": (
            good.withColumn("when", F.current_date()), {"featuresCol": "when"},
        ),
        "column 'a' has missing values": (good.withColumn("a", hole), {"featuresCol": "a"}),
        "column 'label' has missing values": (
            good.withColumn("label", F.when(F.col("a") > 0, F.col("label"))), {},
        ),
        "column 'a' has values that are NaN": (
            good.withColumn("a", F.lit(float("nan"))), {"featuresCol": "a"},
        ),
        "has weights below zero": (good.withColumn("weight", F.lit(-1.0)), {"weightCol": "weight"}),
        "all rows that count are of one class, 1": (good.withColumn("label", F.lit(1.0)), {}),
        "no rows": (good.filter("label > 7"), {}),
        "a partition has no rows that count": (good.limit(1), {}),
        "with 1 and with 2 numbers": (
            good.withColumn("v", uneven), {"featuresCol": "v"},
        ),
    }  # fmt: skip
    for words, (frame, params) in cases.items():
        with pytest.raises(DataError, match=words):
            DistributedClassifier(rounds=2, numWorkers=2, **params).fit(frame)


def test_options_that_make_no_sense_are_refused(spark):
    frame = frame_of(spark, *numbers(40))
    for error, words, params in (
        (OptionError, "no Param 'round'; did you mean 'rounds'", {"round": 3}),
        (OptionError, "no objective 'squared'", {"objective": "squared"}),
        (OptionError, "rounds must be at least 1", {"rounds": 0}),
        (OptionError, "stps", {"options": {"stps": 3}, "algorithm": "bmuf"}),
        (UnsupportedError, "asgd is not synchronous", {"algorithm": "asgd"}),
        (UnsupportedError, "can run 4 tasks at once", {"numWorkers": 5}),
    ):
        with pytest.raises(error, match=words):
            DistributedClassifier(**params).fit(frame)


def test_a_model_refuses_other_data(spark):
    X, y = numbers(40)
    model = DistributedClassifier(rounds=2, numWorkers=2).fit(frame_of(spark, X, y))
    with pytest.raises(DataError, match="has a column 'prediction' already"):
        told = model.transform(frame_of(spark, X, y))
        model.transform(told.drop("rawPrediction", "probability"))
    with pytest.raises(PySparkException, match="vectors of 2 numbers; the model was trained on 3"):
        short = frame_of(spark, X, y).withColumn("features", F.array("a", "b"))
        model.transform(short).collect()
