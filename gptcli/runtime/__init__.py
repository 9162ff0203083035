"""The machine beneath a stage: devices, precision, processes, signals."""
