"""Anomaly detection: features, detectors, scores and their reasons. Pure: tables and arrays in, tables and arrays out."""
