"""From predictions to a retraining verdict: outcomes, drift, policy."""
