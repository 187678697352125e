"""What quantizing cost: word error rates, latency, routing. Runs on a device: no torch, no onnx."""
