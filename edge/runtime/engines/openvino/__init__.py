"""OpenVINO on Intel CPUs and GPUs."""
