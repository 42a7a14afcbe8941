"""Pure rules: frames and numbers in; frames, numbers and verdicts out. No files, clock, network or Dagster."""
