"""Anomaly detection: features, detectors, scores and their reasons. Pure: tables and arrays in and out."""
