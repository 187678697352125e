"""What decides the precision of each layer: calibrated scales, sensitivity, the tuner."""
